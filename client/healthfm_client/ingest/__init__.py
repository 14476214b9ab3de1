"""From a site's raw data to its store, a module per source.

To add a source, add one module here with a `READER` (see `reader.Reader`); it is found by itself,
in `healthfm-client ingest` as in `ingest()`.
"""

from healthfm_client.ingest.pipeline import ingest

__all__ = ["ingest"]
