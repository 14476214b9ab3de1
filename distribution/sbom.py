"""A software bill of materials (CycloneDX) of a folder of wheels, with each one's licence."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Any, Final

from distribution.signatures import sha256
from distribution.wheels import ROOT, metadata, metadata_text

VERSION_OF_FORMAT: Final = "1.6"
PROGRAM: Final = Path(sys.prefix) / "cyclonedx" / "bin" / "cyclonedx-py"
"""In an environment of its own: the Makefile says why."""


def sbom(wheels: Path) -> dict[str, Any]:
    """Return the bill of the wheels in a folder, made and validated by cyclonedx-py.

    It reads installed packages; so each wheel's metadata, and nothing else of it, is laid into an
    empty environment. The hashes are of the wheels.
    """
    with tempfile.TemporaryDirectory() as place:
        _lay_out(wheels, Path(place))
        out = Path(place) / "sbom.json"
        command = [str(PROGRAM), "environment"]
        command += ["--output-reproducible", "--spec-version", VERSION_OF_FORMAT, "-o", str(out)]
        command += ["--pyproject", str(ROOT / "pyproject.toml"), str(_python(Path(place)))]
        subprocess.run(command, check=True)
        bill: dict[str, Any] = json.loads(out.read_text("utf-8"))
    digests = {metadata(wheel): sha256(wheel) for wheel in wheels.glob("*.whl")}
    for component in bill["components"]:
        digest = digests[component["name"], component["version"]]
        component["hashes"] = [{"alg": "SHA-256", "content": digest}]
    return bill


def _lay_out(wheels: Path, place: Path) -> None:
    venv.create(place, with_pip=False)
    (packages,) = place.glob("lib/python*/site-packages")
    for wheel in wheels.glob("*.whl"):
        name, version = metadata(wheel)
        folder = packages / f"{name.replace('-', '_')}-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(metadata_text(wheel), "utf-8")


def _python(place: Path) -> Path:
    return place / "bin" / "python"
