"""The readers, a module per format; each has a `READER`, and is found by it."""
