"""The checks: one pass over a store's events for each question, in DuckDB, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, Literal

import duckdb
import pyarrow as pa

from healthfm_client.site_store.current_events import view_current_events
from healthfm_client.site_store.quality.limits import QualityLimits
from healthfm_core.data.store.site_store import SiteStore

MEMORY: Final = "768MB"
Category = Literal["conformance", "completeness", "plausibility"]
CATEGORIES: Final[dict[str, Category]] = {
    "isSound": "conformance",
    "plausibleUnit": "conformance",
    "standardConceptRecordCompleteness": "completeness",
    "measurePersonCompleteness": "completeness",
    "measureValueCompleteness": "completeness",
    "birthCompleteness": "completeness",
    "sexCompleteness": "completeness",
}
"""Check → Kahn's category; what is not named is of plausibility."""
_AGE: Final = "date_diff('day', p.birth, e.time) / 365.25"
_DOMAIN: Final = "split_part(e.code, '//', 1)"
_VITAL: Final = "('MEDS_BIRTH', 'MEDS_DEATH')"


@dataclass(frozen=True)
class QualityCheck:
    """What one check found.

    Attributes:
        name: The check, as the dashboard names it.
        category: Kahn's.
        field: What of the store was looked at: a code, a domain of codes, or all of it.
        description: What a row that it found is, in words.
        found: Rows, or people in completeness, that it found.
        rows: Of how many.
        threshold: Share that may be found.
    """

    name: str
    category: Category
    field: str
    description: str
    found: int
    rows: int
    threshold: float

    @property
    def share(self) -> float:
        """Found of all, 0 to 1."""
        return self.found / max(1, self.rows)

    @property
    def failed(self) -> bool:
        """Whether more was found than may be."""
        return self.share > self.threshold

    def as_row(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {**asdict(self), "share": round(self.share, 6), "failed": self.failed}


@dataclass(frozen=True)
class CodeFacts:
    """What is kept of the codes, to see what has drifted by the next time.

    Attributes:
        people: Of the store.
        rows: Code → events with it.
        quartiles: Code → its values' quartiles, of those with enough.
    """

    people: int
    rows: dict[str, int]
    quartiles: dict[str, tuple[float, float, float]]


class QualityOfStore:
    """The questions asked of one store's events.

    Args:
        store: Whose.
        limits: What is implausible.
    """

    def __init__(self, store: SiteStore, limits: QualityLimits) -> None:
        self._store = store
        self._limits = limits
        # By default DuckDB spills people's rows into the working folder, readable by all.
        prefix = f".{store.path.name}.quality-"
        self._spilt = TemporaryDirectory(prefix=prefix, dir=store.path.parent)
        self._database = duckdb.connect(
            config={"memory_limit": MEMORY, "threads": 2, "temp_directory": self._spilt.name}
        )
        self._database.execute("SET preserve_insertion_order = false")
        view_current_events(self._database, store.path)
        self._ask(
            "CREATE TABLE people AS SELECT subject_id, "
            "min(time) FILTER (code = 'MEDS_BIRTH') AS birth, "
            "min(time) FILTER (code = 'MEDS_DEATH') AS death, "
            "min(code) FILTER (code IN ('Gender//F', 'Gender//M')) AS sex "
            "FROM events GROUP BY subject_id"
        )

    def close(self) -> None:
        """End the database, and remove what it spilt."""
        self._database.close()
        self._spilt.cleanup()

    def checks(self) -> Iterator[QualityCheck]:
        """Yield what each check found; codes with too few rows are left out."""
        aside = self._store.set_aside
        text = "rows of the source that could not be true and were set aside"
        yield self._check("isSound", "all", text, aside.rows, aside.rows + aside.kept)
        yield from self._people()
        yield from self._domains()
        yield from self._times()
        yield from self._sexes()
        yield from self._values()

    def facts(self) -> CodeFacts:
        """Return what is compared with the next time."""
        rows = self._ask("SELECT code, count(*) FROM events GROUP BY code ORDER BY code")
        parts = "[0.25, 0.5, 0.75]"
        values = self._ask(
            f"SELECT code, approx_quantile(CAST(numeric_value AS DOUBLE), {parts}) FROM events "
            "WHERE numeric_value IS NOT NULL GROUP BY code "
            f"HAVING count(*) >= {self._limits.fewest_rows} ORDER BY code"
        )
        ((people,),) = self._ask("SELECT count(*) FROM people")
        return CodeFacts(people, dict(rows), {code: tuple(cuts) for code, cuts in values})

    def _people(self) -> Iterator[QualityCheck]:
        ((people, births, sexes),) = self._ask(
            "SELECT count(*), count(birth), count(sex) FROM people"
        )
        yield self._check("birthCompleteness", "MEDS_BIRTH", "no birth", people - births, people)
        yield self._check("sexCompleteness", "Gender", "no sex", people - sexes, people)

    def _domains(self) -> Iterator[QualityCheck]:
        ((people,),) = self._ask("SELECT count(*) FROM people")
        found = self._ask(
            f"SELECT {_DOMAIN} AS domain, count(*), count(DISTINCT subject_id), "
            "count(*) FILTER (numeric_value IS NULL) FROM events e "
            f"WHERE code NOT IN {_VITAL} GROUP BY domain ORDER BY domain"
        )
        for domain, rows, who, valueless in found:
            text = "people without an event of the domain"
            yield self._check("measurePersonCompleteness", domain, text, people - who, people)
            if domain == "LOINC":
                text = "measurements without a number"
                yield self._check("measureValueCompleteness", domain, text, valueless, rows)
        known = set(self._limits.standard)
        rows = sum(row[1] for row in found)
        other = sum(row[1] for row in found if row[0] not in known)
        text = "events under codes of no shared vocabulary (ingest --map replaces them)"
        yield self._check("standardConceptRecordCompleteness", "all", text, other, rows)
        ((without, with_value),) = self._ask(
            "SELECT count(*) FILTER (split_part(e.code, '//', 3) = '' AND w.code IS NOT NULL), "
            "count(*) FROM events e LEFT JOIN wanted w ON w.code = e.code "
            "WHERE numeric_value IS NOT NULL AND e.code LIKE 'LOINC//%'",
            wanted=self._codes_with_units(),
        )
        text = "values without a unit, of measurements that have one"
        yield self._check("plausibleUnit", "LOINC", text, without, with_value)

    def _times(self) -> Iterator[QualityCheck]:
        days = self._limits.days_after_death
        found = self._ask(
            f"SELECT {_DOMAIN} AS domain, count(*), count(*) FILTER (e.time < p.birth), "
            f"count(*) FILTER (e.time > p.death + INTERVAL {days} DAY) "
            "FROM events e JOIN people p USING (subject_id) "
            f"WHERE e.time IS NOT NULL AND e.code NOT IN {_VITAL} GROUP BY domain ORDER BY domain"
        )
        for domain, rows, early, late in found:
            yield self._check("plausibleAfterBirth", domain, "events before the birth", early, rows)
            text = f"events more than {days} days after the death"
            yield self._check("plausibleBeforeDeath", domain, text, late, rows)

    def _sexes(self) -> Iterator[QualityCheck]:
        for begin, sex in self._limits.of_one_sex.items():
            ((rows, other),) = self._ask(
                "SELECT count(*), count(*) FILTER (p.sex <> ?) FROM events e "
                "JOIN people p USING (subject_id) WHERE starts_with(e.code, ?)",
                f"Gender//{sex}",
                begin,
            )
            if rows:
                text = f"events of people of another sex than {sex}"
                yield self._check("plausibleGender", begin, text, other, rows)

    def _values(self) -> Iterator[QualityCheck]:
        values = self._limits.values
        table = pa.table(
            {
                "number": pa.array(range(len(values)), pa.int32()),
                "code": [one.code for one in values],
                "low": pa.array([one.low for one in values], pa.float64()),
                "high": pa.array([one.high for one in values], pa.float64()),
                "from_age": pa.array([one.from_age for one in values], pa.float64()),
                "to_age": pa.array([one.to_age for one in values], pa.float64()),
                "of_an_age": [one.of_an_age for one in values],
            }
        )
        found = self._ask(
            "SELECT l.number, count(*), count(*) FILTER (e.numeric_value < CAST(l.low AS FLOAT)), "
            "count(*) FILTER (e.numeric_value > CAST(l.high AS FLOAT)) "
            "FROM events e JOIN value_limits l ON l.code = e.code JOIN people p USING (subject_id) "
            f"WHERE e.numeric_value IS NOT NULL AND (NOT l.of_an_age OR ({_AGE} >= l.from_age "
            f"AND (l.to_age IS NULL OR {_AGE} < l.to_age))) GROUP BY l.number ORDER BY l.number",
            value_limits=table,
        )
        for number, rows, low, high in found:
            one = values[number]
            if rows < self._limits.fewest_rows:
                continue
            age = "" if not one.of_an_age else f", aged {one.from_age:g} to {one.to_age or '…'}"
            what = (one.name or "values") + age
            below, above = f"{what}: below {one.low:g}", f"{what}: above {one.high:g}"
            yield self._check("plausibleValueLow", one.code, below, low, rows)
            yield self._check("plausibleValueHigh", one.code, above, high, rows)

    def _codes_with_units(self) -> pa.Table:
        """Return codes, without a unit, of measurements that the limits know with one."""
        parts = (one.code.split("//") for one in self._limits.values)
        bare = sorted({"//".join(part[:2]) for part in parts if len(part) > 2})
        return pa.table({"code": pa.array(bare, pa.string())})

    def _check(
        self, name: str, field: str, description: str, found: int, rows: int
    ) -> QualityCheck:
        category = CATEGORIES.get(name, "plausibility")
        threshold = self._limits.thresholds[name]
        return QualityCheck(name, category, field, description, found, rows, threshold)

    def _ask(self, query: str, *given: object, **tables: pa.Table) -> list[Any]:
        for name, table in tables.items():
            self._database.register(name, table)
        return self._database.execute(query, list(given)).fetchall()


def drift(now: CodeFacts, before: CodeFacts, limits: QualityLimits) -> list[QualityCheck]:
    """Return how far a store is from what it was: rows a person, medians, codes that are gone."""

    def check(name: str, field: str, description: str, found: float) -> QualityCheck:
        parts = 10_000
        threshold = limits.thresholds[name]
        return QualityCheck(
            name, "plausibility", field, description, round(found * parts), parts, threshold
        )

    frequent = {c: n for c, n in before.rows.items() if n >= limits.fewest_rows}
    gone = sum(code not in now.rows for code in frequent)
    text = f"{gone} of {len(frequent)} codes are there no more"
    found = [check("driftOfCodes", "all", text, gone / max(1, len(frequent)))]
    for domain in sorted({code.partition("//")[0] for code in frequent}):
        was, is_ = (_per_person(facts, domain) for facts in (before, now))
        text = f"{was:.3g} events a person before, {is_:.3g} now"
        found.append(check("driftOfRows", domain, text, abs(is_ - was) / was))
    for code in sorted(before.quartiles.keys() & now.quartiles.keys()):
        low, middle, high = before.quartiles[code]
        moved = abs(now.quartiles[code][1] - middle)
        wide = max(high - low, 1e-9 * abs(middle), 1e-12)
        if moved > limits.thresholds["driftOfMedians"] * wide:
            text = f"median {middle:.4g} before, {now.quartiles[code][1]:.4g} now"
            found.append(check("driftOfMedians", code, text, moved / wide))
    return found


def _per_person(facts: CodeFacts, domain: str) -> float:
    rows = sum(n for code, n in facts.rows.items() if code.partition("//")[0] == domain)
    return rows / max(1, facts.people)


def check_quality(
    path: Path, limits: QualityLimits, before: CodeFacts | None = None
) -> tuple[list[QualityCheck], CodeFacts]:
    """Return what the checks find in a store, and what the next time is compared with.

    Args:
        path: The store.
        limits: What is implausible.
        before: What an earlier time found, to see what has drifted.

    Raises:
        StoreError: HF-2xx where it is no sound store.
    """
    store = SiteStore.open(path)
    with closing(QualityOfStore(store, limits)) as quality:
        found, facts = list(quality.checks()), quality.facts()
    if before is not None:
        found += drift(facts, before, limits)
    return found, facts
