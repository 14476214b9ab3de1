"""One module for each tracker, with its `TRACKER`; its package is imported where it is used."""
