"""Compiles the CPU kernel into the package while it is built or installed.

Without a C++ compiler the package is built all the same and its kernel runs in PyTorch; with one,
the wheel carries the library, so that a site needs no compiler of its own.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCE = Path("healthfm_core/kernels/ct_attention/cpu")
LIBRARY = SOURCE / "_ct_attention.so"
FLAGS = ["-O3", "-std=c++17", "-fPIC", "-fopenmp", "-fno-math-errno", "-fvisibility=hidden"]
INSTRUCTIONS: dict[str, tuple[int, int, list[str]]] = {
    "generic": (4, 6, []),
    "avx2": (8, 6, ["-mavx2", "-mfma"]),
    "avx512": (16, 8, ["-mavx512f", "-mavx512dq", "-mfma"]),
}
"""Name: floats of a vector, rows of a register block, flags; `dispatch.cpp` chooses among them."""


class CustomBuildHook(BuildHookInterface[Any]):
    """Adds the compiled kernel to the wheel, or to the checkout of an editable install."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and mark the wheel as this platform's where that worked."""
        if self.target_name != "wheel":
            return
        root = Path(self.root)
        try:
            if not _is_fresh(root):
                compile_library(root / SOURCE, root / LIBRARY)
        except (OSError, subprocess.CalledProcessError) as error:
            (root / LIBRARY).unlink(missing_ok=True)
            self.app.display_warning(f"no compiled attention, PyTorch's tiles instead: {error}")
            return
        build_data["artifacts"].append(LIBRARY.as_posix())
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{_platform()}"


def _is_fresh(root: Path) -> bool:
    library = root / LIBRARY
    sources = [
        root / "hatch_build.py",
        *(root / SOURCE).glob("*.cpp"),
        *(root / SOURCE).glob("*.h"),
    ]
    newest = max(source.stat().st_mtime for source in sources)
    return library.is_file() and library.stat().st_mtime > newest


def compile_library(source: Path, library: Path) -> None:
    """Compile `source` for every instruction set of this processor's family into `library`.

    Raises:
        OSError: No compiler: neither ``$CXX`` nor g++, clang++ or c++.
        subprocess.CalledProcessError: The compiler refused.
    """
    compiler = os.environ.get("CXX") or next(filter(None, map(shutil.which, _COMPILERS)), None)
    if compiler is None:
        raise FileNotFoundError("no C++ compiler (g++, clang++, c++) was found")
    names = list(INSTRUCTIONS) if platform.machine() in ("x86_64", "AMD64") else ["generic"]
    with tempfile.TemporaryDirectory() as folder:
        commands = [[compiler, *FLAGS, "-c", str(source / "dispatch.cpp")]]
        for name in names:
            width, rows, flags = INSTRUCTIONS[name]
            macros = [f"-DCT_NAMESPACE={name}", f"-DCT_WIDTH={width}", f"-DCT_ROWS={rows}"]
            commands.append(
                [compiler, *FLAGS, *flags, *macros, "-c", str(source / "ct_attention.cpp")]
            )
        objects = [f"{folder}/{place}.o" for place in range(len(commands))]
        with ThreadPoolExecutor() as pool:
            list(pool.map(_run, ([*c, "-o", o] for c, o in zip(commands, objects, strict=True))))
        built = f"{folder}/{library.name}"
        static = ["-static-libgcc", "-static-libstdc++"]
        _run([compiler, "-shared", "-fopenmp", *static, *objects, "-o", built])
        shutil.copyfile(built, library.with_suffix(".new"))
    library.with_suffix(".new").replace(library)


_COMPILERS = ("g++", "clang++", "c++")


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)


def _platform() -> str:
    return f"{platform.system().lower()}_{platform.machine()}"
