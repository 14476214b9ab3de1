"""What ``doctor`` says."""

from __future__ import annotations

import pytest

from healthfm_client.__main__ import main
from healthfm_core.kernels.ct_attention.cpu import compiled


@pytest.fixture
def library(monkeypatch, tmp_path):
    """A library of the test's own in place of the compiled one."""

    def use(content: bytes | None) -> None:
        file = tmp_path / "_ct_attention.so"
        if content is not None:
            file.write_bytes(content)
        monkeypatch.setattr(compiled, "LIBRARY", file)
        compiled._library.cache_clear()
        compiled.why_absent.cache_clear()

    yield use
    monkeypatch.undo()
    compiled._library.cache_clear()
    compiled.why_absent.cache_clear()


def test_doctor_names_the_attention_in_use(capsys):
    assert main(["doctor"]) == 0
    wanted = compiled.instructions()
    said = f"compiled ({wanted})" if wanted else "tiles in PyTorch"
    assert f"attention   {said}\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "why"), [(None, "it was not compiled"), (b"no library", "it does not fit")]
)
def test_doctor_says_why_the_compiled_kernel_is_missing(capsys, library, content, why):
    library(content)
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "attention   tiles in PyTorch" in out
    assert why in out
