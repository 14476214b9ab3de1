"""From a site's raw data to its store: `pipeline.ingest`.

More of the same people goes into a store from another source by `into_store.ingest_into`, and what
is new in its own source by `update_store.update_store`.
`readers` has a module per format; to add one, add a module there with a `READER` (see
`reader_interface.Reader`): it is found by itself, in `healthfm-client ingest` as in `ingest()`.
What readers share is apart from them: `tables` reads files and columns, `codes` names what a row
says and brings units to one, `fhir_r4` knows FHIR's resources.
"""

from healthfm_client.ingest.into_store import ingest_into
from healthfm_client.ingest.pipeline import ingest
from healthfm_client.ingest.update_store import update_store

__all__ = ["ingest", "ingest_into", "update_store"]
