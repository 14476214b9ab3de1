"""Concept sets: several codes, their descendants or a limit on values as one target."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from healthfm_core.config.compose import compose
from healthfm_core.config.tokens import CodeCondition, TokensConfig
from healthfm_core.errors import ConfigError
from healthfm_core.tokens.concept_sets import with_concepts
from healthfm_core.tokens.records import read_events
from healthfm_core.tokens.statistics import merge, site_statistics
from healthfm_core.tokens.tokenizer import tokenize
from healthfm_core.tokens.vocabulary import build_vocabulary
from tests.tokens.small_store import HOUR_US, Row, write

KIDNEY = "CONCEPT//kidney"
POTASSIUM = "CONCEPT//hyperkalaemia"
SETS = {
    "kidney": [{"codes": ["DX//N18", "DX//Z99"]}],
    "hyperkalaemia": [{"codes": ["LAB//K"], "above": 5.5}, {"codes": ["DX//E875"]}],
}
CONFIG = TokensConfig(k_min=1, value_bins=2, concept_sets=SETS)
PARENTS = {"DX//N183": "DX//N18", "DX//N184": "DX//N18", "DX//N18": "DX"}
ROWS: list[Row] = [
    (1, None, "DX//N18", None),
    (1, 1.0, "DX//N183", None),
    (1, 1.0, "DX//N184", None),
    (1, 1.0, "LAB//K", 5.5),
    (1, 2.0, "LAB//K", 5.6),
    (1, 3.0, "DX//A", None),
    (2, 4.0, "DX//Z99", None),
    (2, 4.0, "DX//E875", None),
    (2, 5.0, "LAB//K", None),
    (2, 5.0, "LAB//NA", 140.0),
]


def occurrences(tmp_path, config=CONFIG, rows=ROWS, parents=PARENTS):
    """Target → (subject, hour) of the visits in which it occurs."""
    store = write(tmp_path / "s", rows, parents=parents)
    vocabulary = build_vocabulary(site_statistics([store], config), config)
    people = tokenize([store], vocabulary, config, split=None)
    found: dict[str, list[tuple[int, float]]] = {name: [] for name in vocabulary.targets}
    for subject in range(people.n_subjects):
        for visit in range(people.visit_offsets[subject], people.visit_offsets[subject + 1]):
            at = slice(*people.visit_target_offsets[visit : visit + 2])
            for target in people.visit_target[at]:
                hour = people.visit_time_us[visit] / HOUR_US
                found[vocabulary.targets[target]].append((int(people.subject_id[subject]), hour))
    return found, vocabulary, people


def test_a_set_occurs_with_any_of_its_codes_their_descendants_or_a_value_beyond_its_limit(tmp_path):
    found, vocabulary, _ = occurrences(tmp_path)
    assert found[KIDNEY] == [(1, 1.0), (2, 4.0)]
    assert found[POTASSIUM] == [(1, 2.0), (2, 4.0)]
    assert found["DX//A"] == [(1, 3.0)]
    rates = dict(zip(vocabulary.targets, vocabulary.target_rates, strict=True))
    assert rates[KIDNEY] == 2 / 5


def test_without_descendants_the_codes_themselves_count(tmp_path):
    sets = {"kidney": [{"codes": ["DX//N18", "DX//Z99"], "descendants": False}]}
    found, *_ = occurrences(tmp_path, CONFIG.model_copy(update={"concept_sets": conditions(sets)}))
    assert found[KIDNEY] == [(2, 4.0)]


def conditions(sets):
    return TokensConfig(concept_sets=sets).concept_sets


def test_every_parent_of_a_code_counts_and_a_circle_ends(tmp_path):
    both = {"DX//A": ["DX", "DX//N18"], "DX": ["DX//A"]}
    sets = conditions({"kidney": [{"codes": ["DX//N18"]}], "none": [{"codes": ["X"]}]})
    events = with_concepts(read_events(write(tmp_path / "t", ROWS), None), sets, both)
    code = events.codes.index(KIDNEY)
    assert (events.time_us[events.code == code] / HOUR_US).tolist() == [3.0]
    assert "CONCEPT//none" in events.codes


def test_a_value_is_between_two_limits(tmp_path):
    sets = {"sodium": [{"codes": ["LAB//NA"], "above": 139, "below": 141}]}
    found, *_ = occurrences(tmp_path, CONFIG.model_copy(update={"concept_sets": conditions(sets)}))
    assert found["CONCEPT//sodium"] == [(2, 5.0)]
    with pytest.raises(ValidationError, match="no value is above"):
        CodeCondition(codes=("A",), above=2, below=2)


def test_the_further_event_stands_behind_those_of_its_time_and_is_read_as_a_token(tmp_path):
    _, vocabulary, people = occurrences(tmp_path)
    first = 3 + len(vocabulary.domains)
    names = [vocabulary.codes[code - first] for code in people.code]
    assert names[:5] == ["DX//N18", "DX//N183", "DX//N184", "LAB//K", KIDNEY]
    assert vocabulary.token_parts.target.max() == len(vocabulary.targets) - 1
    assert people.time_us[people.offsets[0] + 4] == HOUR_US


def test_a_set_is_a_target_however_rare_and_its_codes_may_be_of_other_domains(tmp_path):
    update = {"max_targets": 2, "max_codes": 2, "domains": ("LAB",)}
    _, vocabulary, _ = occurrences(tmp_path, CONFIG.model_copy(update=update))
    assert set(vocabulary.targets) == {KIDNEY, POTASSIUM} == set(vocabulary.codes)
    three = CONFIG.model_copy(update={"max_targets": 3})
    assert len(build_vocabulary(statistics(tmp_path, three), three).targets) == 3


def statistics(tmp_path, config):
    return site_statistics([write(tmp_path / "u", ROWS, parents=PARENTS)], config)


def test_codes_too_rare_to_leave_a_site_count_together(tmp_path):
    two = CONFIG.model_copy(update={"k_min": 2})
    found = statistics(tmp_path, two)
    assert not {"DX//Z99", "DX//N183", "DX//N184"} & set(found.codes)
    assert found.subjects[found.codes.index(KIDNEY)] == 2


def test_a_set_that_nobody_has_is_refused_by_name(tmp_path):
    sets = conditions({"kidney": [{"codes": ["DX//N19"]}]})
    config = CONFIG.model_copy(update={"concept_sets": sets})
    with pytest.raises(ConfigError, match=r"HF-106.*concept_sets\.kidney.*k_min=1 people"):
        build_vocabulary(merge([statistics(tmp_path, config)]), config)


def test_a_set_is_written_on_the_command_line_and_in_yaml():
    config = compose(["tokens.concept_sets.k=[{codes:[LAB//K],above:5.5}]"])
    (condition,) = config.tokens.concept_sets["k"]
    assert (condition.codes, condition.above, condition.descendants) == (("LAB//K",), 5.5, True)
    with pytest.raises(ConfigError, match="HF-101"):
        compose(["tokens.concept_sets.k=[{codes:[LAB//K],abov:5.5}]"])
