"""The HTTP calls, a file for each thing that they are about."""
