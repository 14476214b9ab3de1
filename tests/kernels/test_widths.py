"""The compiled kernel at every vector width, whatever this processor has."""

from __future__ import annotations

import subprocess
from itertools import product

import pytest
import torch

from healthfm_core.kernels.ct_attention.cpu import compiled
from tests.compiled_kernel import COMPILER, needs_compiler
from tests.kernels.cases import CASES
from tests.kernels.oracle import VARIANTS, exact, passes, random_like, relative

SOURCE = compiled.LIBRARY.with_name("ct_attention.cpp")
ENTRY = """
#include "ct_attention.h"
namespace built { int forward(const ct_arguments*); int backward(const ct_arguments*); }
extern "C" {
int ct_attention_forward(const ct_arguments* a) { return built::forward(a); }
int ct_attention_backward(const ct_arguments* a) { return built::backward(a); }
const char* ct_attention_instructions() { return "built"; }
int64_t ct_attention_arguments_size() { return sizeof(ct_arguments); }
}
"""


@pytest.fixture
def at_width(use_library, tmp_path):
    """Compile for vectors of so many floats, out of narrower instructions, and use that."""

    def build(width: int, rows: int) -> None:
        entry = tmp_path / "entry.cpp"
        entry.write_text(ENTRY)
        macros = ["-DCT_NAMESPACE=built", f"-DCT_WIDTH={width}", f"-DCT_ROWS={rows}"]
        flags = ["-O1", "-std=c++17", "-fPIC", "-fopenmp", "-w", f"-I{SOURCE.parent}"]
        library = tmp_path / "built.so"
        sources = [str(SOURCE), str(entry)]
        command = [COMPILER, *flags, *macros, "-shared", *sources, "-o", str(library)]
        subprocess.run(command, check=True)
        use_library(library)

    return build


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize(("width", "rows"), [(4, 6), (16, 8)], ids=["generic", "avx512"])
def test_every_width_equals_the_reference(at_width, width, rows):
    """AVX-512 vectors are built out of narrower ones: the same source, the same memory."""
    at_width(width, rows)
    assert compiled.instructions() == "built"
    for name, variant in product(CASES, VARIANTS):
        x = CASES[name].inputs()
        d_out = random_like(x)
        out, _, found = passes(compiled, x, d_out, variant)
        wanted_out, wanted = exact(x, d_out, variant)
        assert relative(out, wanted_out) < 1e-5, (name, variant)
        for one, other in zip(found[:3], wanted[:3], strict=True):
            assert relative(one, other) < 1e-5, (name, variant)
        assert all(bool(torch.isfinite(part).all()) for part in found), (name, variant)
