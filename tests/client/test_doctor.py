"""What ``doctor`` says."""

from __future__ import annotations

import subprocess

import pytest

from healthfm_client.__main__ import main
from healthfm_core.kernels.ct_attention.cpu import compiled
from tests.compiled_kernel import COMPILER, needs_compiler


def test_doctor_names_the_attention_in_use(capsys):
    assert main(["doctor"]) == 0
    wanted = compiled.instructions()
    said = f"compiled ({wanted})" if wanted else "tiles in PyTorch"
    assert f"attention   {said}\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "why"), [(None, "it was not compiled"), (b"no library", "it does not fit")]
)
def test_doctor_says_why_the_compiled_kernel_is_missing(
    capsys, use_library, tmp_path, content, why
):
    file = tmp_path / "_ct_attention.so"
    if content is not None:
        file.write_bytes(content)
    use_library(file)
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "attention   tiles in PyTorch" in out
    assert why in out


@needs_compiler
@pytest.mark.parametrize(
    "source", ["", 'extern "C" long ct_attention_arguments_size() { return 8; }']
)
def test_a_library_of_other_sources_is_not_called(capsys, use_library, tmp_path, source):
    file = tmp_path / "_ct_attention.so"
    (tmp_path / "other.cpp").write_text(source)
    subprocess.run([COMPILER, "-shared", "-fPIC", tmp_path / "other.cpp", "-o", file], check=True)
    use_library(file)
    assert main(["doctor"]) == 0
    assert "from other sources" in capsys.readouterr().out
