"""A proxy's password is in a file of its owner's, and never in a list of processes."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path

import pytest

from healthfm_client.commands import join
from healthfm_client.site.site_folder import SiteFolder
from healthfm_core.errors import ConfigError, TrustError

ADDRESS = "http://user:secret@127.0.0.1:3128"


def remember(tmp_path: Path, *words: str) -> str | None:
    parser = ArgumentParser()
    join.arguments(parser)
    site = SiteFolder(tmp_path)
    join._remember(site, parser.parse_args(["--store", str(tmp_path), *words]))
    return site.settings().proxy


def test_a_password_on_the_command_line_is_refused_and_not_repeated(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"HF-103.*--proxy-file FILE") as refused:
        remember(tmp_path, "--proxy", ADDRESS)
    assert "secret" not in str(refused.value)
    assert remember(tmp_path, "--proxy", "http://127.0.0.1:3128") == "http://127.0.0.1:3128"


def test_it_comes_from_a_file_that_nobody_else_may_read(tmp_path: Path) -> None:
    file = tmp_path / "address"
    file.touch(mode=0o600)
    file.write_text(ADDRESS + "\n")
    assert remember(tmp_path, "--proxy-file", str(file)) == ADDRESS
    file.chmod(0o644)
    with pytest.raises(TrustError, match=r"HF-802.*read by others"):
        remember(tmp_path, "--proxy-file", str(file))
