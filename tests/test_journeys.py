"""The journeys: what is called, once each, and how often a file is come back to."""

from __future__ import annotations

from healthfm_core import seeding
from healthfm_core.config.compose import compose
from tests.journeys import PERSONS, Journey, command_to_checkpoint, listed, write_omop


def test_a_function_counts_once_where_it_is_first_called():
    journey = Journey("two generators")
    with journey.followed():
        seeding.numpy_generator(1, "a")
        seeding.numpy_generator(1, "b")
    seeding.torch_generator(1, "c")  # nobody follows
    names = [(function.name, function.depth) for function in journey.functions]
    assert names == [("numpy_generator", 0), ("seed_for", 1)]
    assert (journey.files, journey.returns) == (["healthfm_core/seeding.py"], 0)
    assert list(listed(journey)) == [
        "\nhealthfm_core/seeding.py",
        "  numpy_generator",
        "  seed_for",
    ]


def test_a_file_that_is_come_back_to_is_a_return():
    journey = Journey("a generator, a configuration, a seed")
    with journey.followed():
        seeding.numpy_generator(1, "a")
        compose([])
        journey.end()
        seeding.torch_generator(1, "b")
    before = journey.returns
    journey.functions.append(journey.functions[0])
    assert journey.returns == before + 1
    assert "torch_generator" not in {function.name for function in journey.functions}


def test_a_round_goes_from_the_configuration_to_a_checkpoint(tmp_path):
    journey = command_to_checkpoint(tmp_path)
    assert journey.functions[0].name == "compose"
    assert any(function.name.endswith("save") for function in journey.functions)
    assert list((tmp_path / "run").glob("checkpoints/round-0001*"))


def test_the_export_has_its_people(tmp_path):
    write_omop(tmp_path / "cdm")
    assert len((tmp_path / "cdm" / "person.csv").read_text().splitlines()) == PERSONS + 1
