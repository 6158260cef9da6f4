"""Other people's tests of interfaces that the SDK has too: see README.md."""
