"""What `make mutants` copies, tells and counts."""

from __future__ import annotations

import re
import tomllib

from tests import mutants


def test_a_module_is_tried_by_the_tests_of_its_mirror_folder():
    assert mutants.mirror_of("healthfm_core/training/passes.py") == "tests/training"
    assert mutants.mirror_of("healthfm_core/models/encoders") == "tests/models"


def test_the_copy_has_the_settings_of_one_module_and_of_one_folder(tmp_path):
    for name, pattern in (("models", "models/*.py"), ("models/gaps.py", "models/gaps.py")):
        copy = mutants.copied(tmp_path / name, f"healthfm_core/{name}", ["tests/models"])
        settings = tomllib.loads((copy / "pyproject.toml").read_text("utf-8"))["tool"]["mutmut"]
        assert settings["only_mutate"] == [f"healthfm_core/{pattern}"]
        assert settings["do_not_mutate_patterns"] == [mutants.SENTENCES]
        assert settings["pytest_add_cli_args_test_selection"] == ["tests/models"]
        assert (copy / "tests" / "conftest.py").is_file()


def test_sentences_of_errors_are_not_changed():
    assert re.match(mutants.SENTENCES, '            seen=f"a horizon of {days:g} days",')
    assert not re.match(mutants.SENTENCES, "    seen = worn[:, :, None]")


def test_the_share_that_lives_is_of_those_tried():
    found = mutants.outcomes(
        "    a__mutmut_1: killed\n    a__mutmut_2: survived\n    b: no tests\n"
    )
    assert mutants.summary("x.py", found) == (
        "x.py: 3 mutants: 1 killed, 1 survived, 1 no tests; 50.0% of those tried live"
    )
