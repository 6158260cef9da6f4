"""Real parts for the tests: a Docker engine, a registry, Redis, images of two architectures."""
