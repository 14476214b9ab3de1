"""PostgreSQL's large tables read by ranges of their pages give what one stream of them gives."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pytest

from healthfm_client.ingest.tables import database_pages
from healthfm_client.ingest.tables.adbc_database import AdbcDatabase, Asked
from healthfm_client.ingest.tables.database_file import database_file
from healthfm_client.ingest.tables.packed_columns import AskedColumn, Pack
from tests.ingest.postgresql_server import Server, binaries, server
from tests.ingest.test_omop_database import EVERY, address, from_files, told

KINDS = {
    "small": "int2",
    "number": "int4",
    "other": "int4",
    "long": "int8",
    "exact": "numeric",
    "real": "float8",
    "short": "float4",
    "day": "date",
    "clock": "timestamp",
    "moment": "timestamptz",
    "words": "varchar(50)",
    "prose": "text",
}
ROWS = (
    *(
        "(-32768, 2147483647, -2147483647, 9223372036854775807, 12.50, 'NaN', 0.1, '1850-01-01', "
        "'1999-12-31 23:59:59.999999', '2010-01-01 12:00+02', 'mg/dL', '')",
        "(32767, 0, -1, -9223372036854775807, -0.000001, '-Infinity', -3.5, '2100-02-28', "
        "'0001-01-01', '1970-01-01 00:00+00', '5, \"6\"', 'µg/dl → 中')",
        f"({', '.join(['NULL'] * len(KINDS))})",
    ),
    "(1, 1, 1, 1, 1e30, 1.7976931348623157e308, 1, '2000-01-01', '2000-01-01', '2000-01-01 00:00',"
    " 'K', E'a\\nb')",
)
NAMES = tuple(KINDS)


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    if binaries() is None:
        pytest.skip("there is no PostgreSQL server to start here: apt-get install postgresql")
    with server() as started:
        columns = ", ".join(f"{name} {kind}" for name, kind in KINDS.items())
        started.run(f"create schema cdm; create table cdm.big (n int8, {columns});")
        for start in range(0, 600, len(ROWS)):
            rows = ", ".join(f"({start + i}, {row[1:]}" for i, row in enumerate(ROWS))
            started.run(f"insert into cdm.big values {rows};")
        yield started


@pytest.fixture
def by_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_pages, "LEAST_PAGES", 1)
    monkeypatch.setattr(database_pages, "PAGES_AT_ONCE", 2)


def opened(running: Server, folder: Path, role: str = "reader") -> AdbcDatabase:
    url = running.url.replace("reader@", f"{role}@")
    return AdbcDatabase.postgresql(folder, database_file(address(folder, url)))


def asked(*names: str) -> dict[str, Asked]:
    return {name: Asked((name,)) for name in names}


def values(found: pa.RecordBatchReader) -> list[dict]:
    """Rows, NaN as a text, kinds of numbers and texts of any width as one."""
    table = found.read_all()
    return [
        {name: "NaN" if value != value else value for name, value in row.items()}
        for row in table.to_pylist()
    ]


def both(
    running: Server, folder: Path, table: str, columns: dict[str, Asked]
) -> tuple[list[dict], list[dict], bool]:
    """Return what pages give, what one stream gives, and whether the first were pages."""
    with closing(opened(running, folder)) as database:
        assert database.pages is not None
        paged = values(database.batches(("cdm", table), columns))
        was_paged = bool(database.pages.others)
    with closing(opened(running, folder)) as database, pytest.MonkeyPatch.context() as patch:
        patch.setattr(database_pages, "LEAST_PAGES", 1 << 40)
        return paged, values(database.batches(("cdm", table), columns)), was_paged


def test_every_type_and_null_comes_as_in_one_stream_in_the_same_order(
    running: Server, tmp_path: Path, by_pages: None
):
    paged, streamed, was_paged = both(running, tmp_path, "big", asked("n", *NAMES))
    assert was_paged
    assert len(paged) == 600
    assert [row["n"] for row in paged] == list(range(600))
    assert paged == streamed
    assert paged[2] == {"n": 2, **dict.fromkeys(NAMES)}


def test_a_text_with_the_separator_in_it_comes_whole(
    running: Server, tmp_path: Path, by_pages: None
):
    running.run(
        "create table cdm.odd as select n, E'a\\x1fb' || n as words from generate_series(1, 500) n;"
        "insert into cdm.odd values (501, null), (502, '');"
    )
    paged, streamed, was_paged = both(running, tmp_path, "odd", asked("n", "words"))
    assert was_paged
    assert paged == streamed
    assert paged[0]["words"] == "a\x1fb1"


def test_a_number_too_large_for_here_is_infinite(running: Server, tmp_path: Path, by_pages: None):
    running.run("create table cdm.huge as select '1e400'::numeric as exact, null::int4 as none;")
    with closing(opened(running, tmp_path)) as database:
        found = values(database.batches(("cdm", "huge"), asked("exact", "none")))
    assert found == [{"exact": float("inf"), "none": None}]


def test_an_infinite_date_is_none(running: Server, tmp_path: Path, by_pages: None):
    running.run(
        "create table cdm.never as select 'infinity'::date as day, '-infinity'::timestamp as clock,"
        " 'infinity'::timestamptz as moment;"
    )
    with closing(opened(running, tmp_path)) as database:
        found = values(database.batches(("cdm", "never"), asked("day", "clock", "moment")))
    assert found == [{"day": None, "clock": None, "moment": None}]


@pytest.mark.parametrize("pages", [1, 1 << 40])
def test_columns_come_merged_and_without_what_nobody_reads(
    running: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pages: int
):
    running.run(
        "drop table if exists cdm.some; create table cdm.some (standard int4, source int8, "
        "called text, clock timestamp, day date); insert into cdm.some values "
        "(5, 7, 'a', '2010-01-01 10:00', '2011-01-01'), (0, 7, 'b', null, '2011-01-01'), "
        "(null, 0, 'c', null, null);"
    )
    monkeypatch.setattr(database_pages, "LEAST_PAGES", pages)
    columns = {
        "concept": Asked(("standard", "source")),
        "time": Asked(("clock", "day")),
        "called": Asked(("called",), ("concept",)),
    }
    with closing(opened(running, tmp_path)) as database:
        assert database.merges(("cdm", "some"), ["standard", "source"])
        assert database.merges(("cdm", "some"), ["clock", "day"])
        assert not database.merges(("cdm", "some"), ["called", "source"])
        found = values(database.batches(("cdm", "some"), columns))
    assert [row["concept"] for row in found] == [5, 7, None]
    assert [str(row["time"]) for row in found] == [
        "2010-01-01 10:00:00",
        "2011-01-01 00:00:00",
        "None",
    ]
    assert [row["called"] for row in found] == [None, None, "c"]


def test_all_connections_see_the_state_in_which_the_database_was_opened(
    running: Server, tmp_path: Path, by_pages: None
):
    running.run("create table cdm.growing as select n from generate_series(1, 1000) n;")
    with closing(opened(running, tmp_path)) as database:
        database.columns(("cdm", "growing"))
        running.run("insert into cdm.growing select n from generate_series(1001, 2000) n;")
        found = values(database.batches(("cdm", "growing"), asked("n")))
    assert [row["n"] for row in found] == list(range(1, 1001))


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("seen", "create view cdm.seen as select n from cdm.big"),
        (
            "parts",
            "create table cdm.parts (n int8) partition by range (n); create table cdm.part "
            "partition of cdm.parts default; insert into cdm.parts select n from cdm.big",
        ),
        (
            "above",
            "create table cdm.above as select n from cdm.big; create table cdm.below () "
            "inherits (cdm.above); insert into cdm.below values (-1)",
        ),
        (
            "guarded",
            "create table cdm.guarded as select n from cdm.big; "
            "alter table cdm.guarded enable row level security",
        ),
        (
            "stout",
            "create table cdm.stout as select n, 'x'::text as prose from cdm.big; alter table "
            "cdm.stout alter prose set storage external; "
            "insert into cdm.stout values (-1, repeat('y', 100000))",
        ),
    ],
)
def test_what_has_no_pages_of_its_own_comes_as_one_stream(
    running: Server, tmp_path: Path, by_pages: None, name: str, made: str
):
    running.run(f"{made};")
    paged, streamed, was_paged = both(running, tmp_path, name, asked("n"))
    assert not was_paged
    assert paged == streamed
    assert len(paged) >= 600


def test_columns_of_other_types_come_as_one_stream(running: Server, tmp_path: Path, by_pages: None):
    running.run("create table cdm.fixed as select n, 'F'::char(3) as sex from cdm.big;")
    paged, streamed, was_paged = both(running, tmp_path, "fixed", asked("n", "sex"))
    assert not was_paged
    assert paged == streamed


def test_an_account_with_one_connection_is_enough(running: Server, tmp_path: Path, by_pages: None):
    running.run(
        "create role once login connection limit 1; grant usage on schema cdm to once; "
        "grant select on cdm.big to once;"
    )
    with closing(opened(running, tmp_path, "once")) as database:
        found = values(database.batches(("cdm", "big"), asked("n")))
        assert database.pages is not None
        assert not database.pages.others
    assert len(found) == 600


def test_nothing_can_be_written_by_the_other_connections_either(
    running: Server, tmp_path: Path, by_pages: None
):
    with closing(opened(running, tmp_path)) as database:
        values(database.batches(("cdm", "big"), asked("n")))
        assert database.pages is not None
        assert len(database.pages.others) == database_pages.CONNECTIONS
        for other in database.pages.others:
            with (
                closing(other.cursor()) as cursor,
                pytest.raises(database.connection.Error, match="read-only"),
            ):
                cursor.execute("delete from cdm.big")


def test_another_table_may_be_asked_for_before_the_last_is_read(
    running: Server, tmp_path: Path, by_pages: None
):
    with closing(opened(running, tmp_path)) as database:
        first = database.batches(("cdm", "big"), asked("n", "prose"))
        first.read_next_batch()
        again = values(database.batches(("cdm", "big"), asked("n")))
    assert len(again) == 600


def test_a_store_by_pages_is_that_of_the_tables_as_files(
    running: Server, tmp_path: Path, by_pages: None
):
    wanted = from_files(tmp_path, time_zone="UTC")
    running.run("create schema if not exists vocab;")
    for name, (columns, _) in EVERY.items():
        schema = "vocab" if name == "concept" else "cdm"
        running.load(f"{schema}.{name}", columns, tmp_path / "files" / f"{name}.csv")
    source = address(tmp_path, running.url)
    assert told(source, tmp_path / "out", time_zone="UTC") == wanted


def test_values_that_are_too_few_are_no_column():
    column = AskedColumn("n", "int8", "n")
    packed = pa.array([b"\x00" * 16], pa.binary())
    assert Pack((column,)).unpacked([packed], 2)[0].to_pylist() == [0, 0]
    with pytest.raises(pa.ArrowInvalid, match="another length"):
        Pack((column,)).unpacked([packed], 3)
