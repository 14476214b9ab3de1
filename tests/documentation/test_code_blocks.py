"""Code in the pages is run by a test, or named as not run; every command in it is one."""

from __future__ import annotations

import contextlib
import re
import tomllib

import pytest
import yaml

from healthfm_core.config.compose import compose
from tests.commands_page import programs
from tests.documentation.code_blocks import NOT_RUN, ROOT, RUN_BY, RUN_KINDS, Block, blocks

BLOCKS = [block for block in blocks() if block.is_code]
PARSERS = programs()
COMMANDS = [(block.page, words) for block in BLOCKS for words in block.commands()]


def test_every_block_of_code_is_run_or_named_as_not_run():
    left = [
        f"{block.page}: {block.text.splitlines()[0]}"
        for block in BLOCKS
        if block.kind not in RUN_KINDS.get(block.page, set()) and block.page not in NOT_RUN
    ]
    assert left == [], "say in tests/documentation/code_blocks.py which test runs it, or why none"


def test_no_page_is_named_that_has_no_such_code():
    kinds = {(block.page, block.kind) for block in BLOCKS}
    assert {(page, kind) for page, some in RUN_KINDS.items() for kind in some} <= kinds
    others = {b.page for b in BLOCKS if b.kind not in RUN_KINDS.get(b.page, set())}
    assert set(NOT_RUN) <= others


@pytest.mark.parametrize("page", RUN_BY)
def test_the_test_that_runs_a_page_reads_it(page: str):
    text = (ROOT / RUN_BY[page]).read_text("utf-8")
    assert f'"{page.removeprefix("docs/")}"' in text


def test_commands_were_found_in_the_pages():
    assert len(COMMANDS) > 60
    assert {words[0] for _, words in COMMANDS} == {*PARSERS, "healthfm-simulate"}


@pytest.mark.parametrize(("page", "words"), COMMANDS, ids=lambda v: v if isinstance(v, str) else "")
def test_every_command_shown_is_one_that_the_program_takes(page: str, words: list[str], capsys):
    program, *given = words
    if program == "healthfm-simulate":
        compose([word for word in given if "$" not in word])
        return
    with contextlib.suppress(SystemExit):  # --version and --help end so, and write nothing there
        PARSERS[program].parse_args([re.sub(r"^\$\w*PORT$", "1", word) for word in given])
    assert capsys.readouterr().err == "", f"{page}: {' '.join(words)}"


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.kind in {"yaml", "toml"}], ids=repr)
def test_settings_in_the_pages_can_be_read(block: Block):
    read = yaml.safe_load(block.text) if block.kind == "yaml" else tomllib.loads(block.text)
    assert isinstance(read, dict)
