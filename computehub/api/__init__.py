"""The HTTP calls, a file for each of their three audiences."""
