"""The tables of docs/your-table.md: ``python -m tests.your_tables FOLDER`` writes them.

Nobody's: three made-up hospitals whose people come back the likelier the older they are, the higher
their blood pressure is and the less they walk.
"""

from __future__ import annotations

import csv
import math
import random
import sys
from collections.abc import Iterable, Sequence
from datetime import date, timedelta
from pathlib import Path

CLINIC = ("patient_id", "birth_date", "sex", "visit_date", "bmi", "systolic", "diabetes")
ACTIVITY = ("patient_id", "date", "steps", "resting_heart_rate")
LABEL = ("patient_id", "prediction_date", "readmitted")
HOSPITALS = {"north": (CLINIC, ACTIVITY), "south": (CLINIC,), "west": (ACTIVITY,)}
EVENTS = """\
subject_id_col: patient_id
clinic:
  birth: {code: MEDS_BIRTH, time: col(birth_date)}
  sex: {code: [SEX, col(sex)], time: null}
  bmi: {code: BMI, time: col(visit_date), numeric_value: bmi}
  systolic: {code: SYSTOLIC, time: col(visit_date), numeric_value: systolic}
  diabetes: {code: [DIABETES, col(diabetes)], time: col(visit_date)}
"""


def write_tables(folder: Path, people: int = 400) -> None:
    """Write each hospital's folder of CSV files, and the mapping file of the clinic's table."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "clinic.yaml").write_text(EVENTS)
    for number, (name, held) in enumerate(HOSPITALS.items(), 1):
        persons = [_person(random.Random(f"{name} {n}"), 1000 * number + n) for n in range(people)]
        (folder / name).mkdir(exist_ok=True)
        if CLINIC in held:
            _write(folder / name / "clinic.csv", CLINIC, [clinic for clinic, _, _ in persons])
        if ACTIVITY in held:
            days = [day for _, days, _ in persons for day in days]
            _write(folder / name / "activity.csv", ACTIVITY, days)
        _write(folder / name / "readmitted.csv", LABEL, [label for *_, label in persons])


def _person(chance: random.Random, who: int) -> tuple[list[object], list[list[object]], list]:
    age, fit = chance.uniform(40, 85), chance.gauss(0, 1)
    systolic, diabetes = chance.gauss(130 + 0.4 * (age - 60), 14), chance.random() < 0.2
    visit = date(2020, 1, 1) + timedelta(days=chance.randrange(300))
    born = visit - timedelta(days=round(age * 365.25))
    clinic = [who, born, chance.choice("FM"), visit, round(chance.gauss(27, 4), 1)]
    clinic += [round(systolic), "yes" if diabetes else "no"]
    days: list[list[object]] = []
    for back in range(chance.randrange(5, 15), 0, -1):
        steps = max(0, round(7000 + 2500 * fit + chance.gauss(0, 1500)))
        pulse = round(70 - 5 * fit + chance.gauss(0, 3), 1)
        days.append([who, visit - timedelta(days=back), steps, pulse])
    logit = -1.6 + 0.05 * (age - 60) + 0.03 * (systolic - 130) + 0.8 * diabetes - 0.9 * fit
    label = [who, visit, int(chance.random() < 1 / (1 + math.exp(-logit)))]
    return clinic, days, label


def _write(file: Path, head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with file.open("w", newline="", encoding="utf-8") as opened:
        csv.writer(opened, lineterminator="\n").writerows([head, *rows])


if __name__ == "__main__":
    write_tables(Path(sys.argv[1]))
