"""docs/your-table.md: its commands run one after the other, and say what the page says."""

from __future__ import annotations

import doctest
import html
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from healthfm_client.__main__ import main as client
from healthfm_simulations.__main__ import main as simulate
from tests.your_tables import ACTIVITY, CLINIC, EVENTS, HOSPITALS, LABEL, write_tables

PAGE = Path(__file__).resolve().parents[1] / "docs" / "your-table.md"
PROGRAMS: dict[str, Callable[[list[str]], int]] = {
    "healthfm-client": client,
    "healthfm-simulate": simulate,
}
QUICK = ["rounds=1", "evaluation.bootstraps=5", "train.max_steps=2", "simulation.workers=1"]
"""The page's federation takes a minute; what is tried here is that it runs and what it says."""


def commands(text: str) -> Iterator[tuple[list[str], list[str]]]:
    """Yield each command of the page with the lines that it is said to print."""
    for block in re.findall(r"```console\n(.*?)```", text, re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            line, *printed = part.rstrip("\n").split("\n")
            yield shlex.split(line), printed


@pytest.fixture(scope="module")
def page() -> str:
    return PAGE.read_text(encoding="utf-8")


def test_the_tables_of_the_page_are_those_that_are_written(page):
    assert f"# clinic.yaml\n{EVENTS}```" in page
    for name, columns in {"clinic": CLINIC, "activity": ACTIVITY, "readmitted": LABEL}.items():
        assert re.search(rf"north/{name}\.csv +{','.join(columns)}\n", page)
    for site, held in HOSPITALS.items():
        for name, columns in {"clinic": CLINIC, "activity": ACTIVITY}.items():
            assert (f"{site}/{name}.csv" in page) == (columns in held)


def test_every_command_of_the_page_runs_and_says_what_is_on_it(page, tmp_path, monkeypatch, capsys):
    write_tables(tmp_path)
    monkeypatch.chdir(tmp_path)
    ran = []
    for (program, *arguments), printed in commands(page):
        is_run = program == "healthfm-simulate"
        assert PROGRAMS[program]([*arguments, *(QUICK if is_run else [])]) == 0, arguments
        said = capsys.readouterr().out.splitlines()
        ran.append(program)
        if is_run:
            assert names_of(printed) == names_of(said)
            kept = [line for line in printed if line.startswith(("fedavg:", "local:", "fold-0:"))]
            assert kept
            assert not set(kept) - {line.rstrip() for line in said}
            report = html.unescape(Path("runs/first/report.html").read_text(encoding="utf-8"))
            assert all(line.partition(": ")[2] in report for line in kept if "fold-0" not in line)
        else:
            assert [line.rstrip() for line in said] == printed
    assert len(ran) == 9
    doctests = doctest.DocTestParser().get_doctest(page, {}, "your-table", str(PAGE), 0)
    told: list[str] = []
    runner = doctest.DocTestRunner()
    runner.run(doctests, out=told.append)
    assert runner.summarize(verbose=False) == (0, 2), "".join(told)


def names_of(lines: list[str]) -> list[str]:
    """Return the arms of the table's rows, in order, sorted where their order is by figure."""
    rows = [re.match(r" ?([a-z][a-z ]+?) +(?:\.\d{3}|–)", line) for line in lines]
    return [row[1] for row in rows if row]


def test_the_settings_are_few(page):
    """A label of one's own takes the group and the task's name."""
    (line,) = [c for c, _ in commands(page) if c[0] == "healthfm-simulate"]
    assert [one.partition("=")[0] for one in line[1:]] == [
        *("data", "data.stores", "train", "evaluation.task", "out")
    ]


def test_the_way_to_deal_out_one_table_is_duckdb_s(page, tmp_path, monkeypatch):
    import duckdb

    monkeypatch.chdir(tmp_path)
    Path("clinic.csv").write_text("patient_id,hospital\n1,north\n2,south\n3,north\n")
    (sql,) = re.findall(r"`(COPY .*?)`\.", page)
    duckdb.sql(sql)
    files = sorted(Path("clinic").rglob("*.csv"))
    assert [file.parent.name for file in files] == ["hospital=north", "hospital=south"]
    assert files[0].read_text().split() == ["patient_id", "1", "3"]


def test_the_mapping_file_is_yaml(page):
    (shown,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert yaml.safe_load(shown) == yaml.safe_load(EVENTS)
