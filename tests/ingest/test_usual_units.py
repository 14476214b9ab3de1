"""The commonest units need no library of units, and come to what it says of them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from healthfm_client.ingest.codes import units
from healthfm_client.ingest.codes.unit_spellings import respelt
from healthfm_client.ingest.codes.usual_units import USUAL


@pytest.mark.parametrize("text", USUAL)
def test_a_usual_unit_is_what_the_library_makes_of_it(text: str):
    assert units.Unit(*USUAL[text]) == units._read(text)


@pytest.mark.parametrize("text", USUAL)
def test_a_usual_unit_is_spelt_as_texts_are_respelt(text: str):
    assert respelt(text) == text


def test_the_unit_of_each_kind_is_usual():
    assert set(units.PREFERRED) <= set(USUAL)


def test_usual_units_are_read_without_the_library():
    said = (
        "import sys; from healthfm_client.ingest.codes.units import canonical; "
        "canonical('MG/DL'); canonical('K/uL'); print('pint' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", said], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "False"
