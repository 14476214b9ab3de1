"""From a site's raw data to its store: `pipeline.ingest`, or into one: `into_store.ingest_into`.

`readers` has a module per format; to add one, add a module there with a `READER` (see
`reader_interface.Reader`): it is found by itself, in `healthfm-client ingest` as in `ingest()`.
What readers share is apart from them: `tables` reads files and columns, `codes` names what a row
says and brings units to one, `fhir_r4` knows FHIR's resources.
"""

from healthfm_client.ingest.into_store import ingest_into
from healthfm_client.ingest.pipeline import ingest

__all__ = ["ingest", "ingest_into"]
