"""Tries the wheel with every Python that `pyproject.toml` allows and this machine has.

    python -m distribution.matrix                    # make matrix
    python -m distribution.matrix 3.12 3.13

For each: an empty environment, `pip install` of the wheel by `constraints.txt`, a simulation and
one round of a deployment. A Python that is not on the PATH is named and passed over. It takes
minutes and gigabytes for each, so it is no part of `make test`.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from packaging.specifiers import SpecifierSet

from distribution.wheels import ROOT, own_wheel

NEWEST: Final = 20
"""No Python 3.x beyond this one is looked for."""


def supported() -> list[str]:
    """Return the Pythons that `requires-python` allows, as ``3.11``."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    allowed = SpecifierSet(project["requires-python"])
    return [f"3.{minor}" for minor in range(NEWEST) if f"3.{minor}" in allowed]


def interpreter(version: str) -> str | None:
    """Return the command of a Python that starts, None where this machine has none."""
    name = f"python{version}"
    if shutil.which(name) is None:
        return None
    asked = [name, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    return name if done.stdout.strip() == version else None


def tried(version: str, command: str, wheel: Path) -> None:
    """Install the wheel into an environment of a Python's own, and let it prove itself.

    Raises:
        subprocess.CalledProcessError: It is not installed, or does not do what it should.
    """
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix=f"healthfm-{version}-") as place:
        subprocess.run([command, "-m", "venv", place], check=True)
        pip = [f"{place}/bin/python", "-m", "pip", "--quiet", "--quiet", "install", "--no-compile"]
        subprocess.run([*pip, "-c", str(ROOT / "constraints.txt"), str(wheel)], check=True)
        print(f"{version}: installed, {time.monotonic() - begun:.0f} s", flush=True)
        proof = ROOT / "tests" / "end_to_end" / "installed.py"
        subprocess.run([command, str(proof), f"{place}/bin"], check=True)


def main(given: Sequence[str]) -> int:
    """Try each Python; the exit code is 1 where one failed, or none was here."""
    done, failed = [], []
    with tempfile.TemporaryDirectory(prefix="healthfm-wheel-") as folder:
        wheel = own_wheel(Path(folder))
        for version in given or supported():
            command = interpreter(version)
            if command is None:
                print(f"{version}: skipped, this machine has no python{version}", flush=True)
                continue
            try:
                tried(version, command, wheel)
            except subprocess.CalledProcessError as error:
                print(f"{version}: FAILED: {error}", flush=True)
                failed.append(version)
            else:
                done.append(version)
    print(f"passed: {', '.join(done) or 'none'}; failed: {', '.join(failed) or 'none'}")
    return 0 if done and not failed else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
