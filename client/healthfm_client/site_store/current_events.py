"""A store's events as a view in DuckDB, what its updates brought and replaced included."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pyarrow as pa

from healthfm_core.data.store.store_layers import StoreLayer, layers_of

_COLUMNS = "subject_id, time, CAST(code AS VARCHAR) AS code, numeric_value"
_NOTHING = (
    "SELECT NULL::BIGINT AS subject_id, NULL::TIMESTAMP AS time, NULL::VARCHAR AS code, "
    "NULL::FLOAT AS numeric_value WHERE false"
)


def view_current_events(database: duckdb.DuckDBPyConnection, store: Path) -> None:
    """Make the view ``events``: subject_id, time, code, numeric_value of every event that counts.

    Args:
        database: A connection; it keeps the tables that the view needs.
        store: A store; one of wearables or scores alone has no event.

    Raises:
        StoreError: A list of people cannot be read (HF-209).
    """
    selects = [
        select
        for number, layer in enumerate(layers_of(store))
        if (select := _of_layer(database, layer, number))
    ]
    database.execute(f"CREATE OR REPLACE VIEW events AS {' UNION ALL '.join(selects) or _NOTHING}")


def _of_layer(database: duckdb.DuckDBPyConnection, layer: StoreLayer, number: int) -> str:
    files = layer.files()
    if not files:
        return ""
    listed = ", ".join("'" + str(file).replace("'", "''") + "'" for file in files)
    query = f"SELECT {_COLUMNS} FROM read_parquet([{listed}])"
    if not len(layer.replaced):
        return query
    name = f"replaced_{number}"
    database.register("given", pa.table({"subject_id": layer.replaced}))
    database.execute(f"CREATE OR REPLACE TABLE {name} AS FROM given")
    database.unregister("given")
    return f"{query} WHERE subject_id NOT IN (FROM {name})"
