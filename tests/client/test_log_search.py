"""What left is found again, from the log's end, without reading all of it."""

from __future__ import annotations

import json
from itertools import count

import pytest

from healthfm_client.egress import log_search
from healthfm_client.egress.egress_log import EgressLog
from healthfm_client.egress.log_search import LogQuery, find_lines, line_of


@pytest.fixture
def log(tmp_path):
    log = EgressLog(tmp_path / "egress.log")
    for number in range(1, 9):
        log.append("train", {"run": "7", "round": str(number), "bytes": 10, "records": {}})
    log.append("query.statistics", {"run": "8", "refused": 503, "reason": "Bücher", "bytes": 0})
    return log


def numbers(found):
    return [entry["n"] for entry in found.lines]


def test_the_newest_are_told_first_and_the_rest_from_where_they_ended(log):
    first = find_lines(log, LogQuery(), limit=4)
    assert numbers(first) == [9, 8, 7, 6]
    second = find_lines(log, LogQuery(), first.earlier, limit=4)
    assert numbers(second) == [5, 4, 3, 2]
    last = find_lines(log, LogQuery(), second.earlier, limit=4)
    assert (numbers(last), last.earlier) == ([1], 0)
    assert last.reached == last.lines[0]["at"][:10]


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        (LogQuery(words=("TRAIN", '"round":"3"')), []),  # quotes are looked for as they are written
        (LogQuery(words=("Statist",)), [9]),
        (LogQuery(words=("Bücher", "503")), [9]),
        (LogQuery(words=("nowhere",)), []),
        (LogQuery(outcome="refused"), [9]),
        (LogQuery(outcome="left", what="train"), [8, 7, 6, 5, 4, 3, 2, 1]),
        (LogQuery(what="query.statistics"), [9]),
        (LogQuery(since="2999-01-01"), []),
        (LogQuery(until="1999-01-01"), []),
        (LogQuery(words=("\ud800",)), []),
    ],
)
def test_a_query_takes_what_it_says(log, query, wanted):
    assert numbers(find_lines(log, query)) == wanted


def test_a_day_is_taken_from_its_beginning_to_its_end(log):
    day = json.loads(log.path.read_text().splitlines()[0])["at"][:10]
    assert len(find_lines(log, LogQuery(since=day, until=day)).lines) == 9


def test_a_search_that_takes_too_long_tells_how_far_it_came(log, monkeypatch):
    monkeypatch.setattr(log_search, "LOOKED_AT_ONCE", 2)
    ticks = count()
    found = find_lines(log, LogQuery(words=("nowhere",)), clock=lambda: float(next(ticks)))
    assert found.lines == []
    assert found.earlier > 0
    again = find_lines(log, LogQuery(words=("nowhere", "train")), found.earlier)
    assert (again.lines, again.earlier) == ([], 0)


def test_each_line_is_found_by_its_number_and_no_other(log):
    for number in range(1, 10):
        entry = line_of(log, number)
        assert entry is not None
        assert entry["n"] == number
    assert [line_of(log, number) for number in (0, 10, 10**12)] == [None] * 3
    with log.path.open("ab") as file:
        file.write(b'{"n":10,"cut sh')
    assert line_of(log, 9)["n"] == 9
    assert line_of(log, 10) is None
    assert numbers(find_lines(log, LogQuery(), limit=1)) == [9]


def test_of_a_log_that_is_not_there_nothing_is_found(tmp_path):
    log = EgressLog(tmp_path / "egress.log")
    assert find_lines(log, LogQuery()).lines == []
    assert line_of(log, 1) is None
    assert log.length() == 0
