"""Plain programs, each in the words of one client library; see tests.support.other_clients."""
