"""Who is in which group, by the codes of every reader."""

from __future__ import annotations

import pytest

from healthfm_core.evaluation.analyses.people_groups import people_groups
from healthfm_core.tokens.tokenizer import tokenize
from tests.tokens.small_store import Row, write
from tests.tokens.test_tokenizer import ONE, study

ROWS: list[Row] = [
    (1, None, "Ethnicity//Hispanic", None),
    (1, None, "Gender//F", None),
    (1, None, "Race//5", None),
    (2, None, "Ethnicity//Hispanic", None),
    (2, None, "SEX//M", None),
    *((who, 1.0, "DX//A", None) for who in (1, 2, 3)),
]


@pytest.mark.parametrize(
    ("attribute", "groups"),
    [("sex", ["F", "M", ""]), ("ancestry", ["5", "Hispanic", ""])],
)
def test_a_group_is_found_by_the_codes_that_readers_write_race_before_ethnicity(
    tmp_path, attribute, groups
):
    store = write(tmp_path / "s", ROWS)
    vocabulary = study([store])
    people = tokenize([store], vocabulary, ONE, split=None)
    assert people_groups(people, vocabulary)[attribute].tolist() == groups
