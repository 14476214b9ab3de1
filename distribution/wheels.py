"""The wheel of this checkout, and the wheels of everything that it needs."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from email.parser import Parser
from pathlib import Path
from typing import Final

from distribution.signatures import sha256

ROOT: Final = Path(__file__).resolve().parents[1]
PIP: Final = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "--quiet")


def own_wheel(folder: Path, source: Path = ROOT) -> Path:
    """Build the wheel of `source` into `folder` and return it; two builds give the same bytes."""
    made = folder / "own"
    options = ("--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", str(made))
    subprocess.run([*PIP, "wheel", *options, str(source)], check=True)
    (wheel,) = made.glob("*.whl")
    return wheel.replace(folder / wheel.name)


def gather(wheel: Path, extras: Sequence[str], folder: Path) -> None:
    """Put `wheel` and the wheels that it and its extras need into `folder`, as pinned.

    They fit the Python that runs this and its platform. What its maker gives as source alone is
    built here, so that nothing is built at a site.

    Raises:
        subprocess.CalledProcessError: pip could not get one; it has said which.
    """
    wanted = f"{wheel}[{','.join(extras)}]" if extras else str(wheel)
    pins = ("-c", str(ROOT / "constraints.txt"))
    subprocess.run([*PIP, "wheel", *pins, "--wheel-dir", str(folder), wanted], check=True)


def requirements(folder: Path) -> str:
    """Return each wheel of `folder` at its version and hash, as ``pip --require-hashes`` reads."""
    rows = sorted((metadata(wheel), sha256(wheel)) for wheel in folder.glob("*.whl"))
    return "".join(
        f"{name}=={version} --hash=sha256:{digest}\n" for (name, version), digest in rows
    )


def metadata(wheel: Path) -> tuple[str, str]:
    """Return a wheel's name and version as its METADATA has them."""
    message = Parser().parsestr(metadata_text(wheel))
    return str(message["Name"]), str(message["Version"])


def metadata_text(wheel: Path) -> str:
    """Return a wheel's METADATA file; of packages that it carries inside it may have others."""
    with zipfile.ZipFile(wheel) as archive:
        own = re.compile(r"[^/]+\.dist-info/METADATA")
        (name,) = filter(own.fullmatch, archive.namelist())
        return archive.read(name).decode("utf-8")
