"""One file that installs HealthFM where there is no network.

    python -m distribution.bundle --out dist                       # make bundle
    python -m distribution.bundle --out dist --key ~/.ssh/release  # signed
    python -m distribution.bundle --out dist --extras database,labels,ray

It is for the Python that makes it and its platform. `install.sh` in it checks and installs it;
what else is in it is said in docs/install.md.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import sys
import tarfile
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from distribution.sbom import sbom
from distribution.signatures import sign, write_sums
from distribution.wheels import ROOT, gather, metadata, own_wheel, requirements

EXTRAS: Final = ("database", "labels")
"""What a site may need beside the packages themselves: OMOP in a database, tasks of its own."""
CARRIED: Final = (
    *("distribution/install.sh", "distribution/Containerfile", "distribution/compose.yaml"),
    *("docs/install.md", "docs/licences.md", "LICENSE", "CHANGELOG.md", "constraints.txt"),
)


def make(out: Path, extras: Sequence[str], key: Path | None) -> Path:
    """Make the bundle in `out` and return its file.

    Raises:
        subprocess.CalledProcessError: pip, the bill of materials or the signature failed; what was
            begun is removed.
    """
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=".bundle-") as place:
        wheel = own_wheel(Path(place))
        _, version = metadata(wheel)
        tag = f"cp{sys.version_info.major}{sys.version_info.minor}"
        folder = Path(place) / f"healthfm-{version}-{tag}-{_platform()}"
        fill(folder, wheel, extras)
        sums = write_sums(folder)
        if key is not None:
            sign(sums, key)
        packed = Path(place) / f"{folder.name}.tar"
        with tarfile.open(packed, "w", format=tarfile.PAX_FORMAT) as archive:
            archive.add(folder, folder.name, filter=_anonymous)
        return packed.replace(out / packed.name)


def fill(folder: Path, wheel: Path, extras: Sequence[str]) -> None:
    """Put everything but checksums into `folder`."""
    (folder / "wheels").mkdir(parents=True)
    gather(wheel, extras, folder / "wheels")
    (folder / "requirements.txt").write_text(requirements(folder / "wheels"), "utf-8")
    bill = json.dumps(sbom(folder / "wheels"), indent=1, sort_keys=True)
    (folder / "sbom.cdx.json").write_text(bill + "\n", "utf-8")
    for name in CARRIED:
        shutil.copy(ROOT / name, folder / Path(name).name)
    python = f"{sys.version_info.major}.{sys.version_info.minor}\n"
    (folder / "python-version").write_text(python, "utf-8")
    (folder / "platform").write_text(_platform() + "\n", "utf-8")
    (folder / "version").write_text(metadata(wheel)[1] + "\n", "utf-8")


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Leave out who packed it, and when."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mtime = 0
    return member


def _platform() -> str:
    return f"{platform.system().lower()}_{platform.machine()}"


def main(given: Sequence[str] | None = None) -> None:
    """Make a bundle, and say how large it is and how long it took."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="a folder (default: dist)")
    parser.add_argument("--extras", default=",".join(EXTRAS), help="of pyproject.toml")
    parser.add_argument("--key", type=Path, help="OpenSSH key that signs; without it unsigned")
    asked = parser.parse_args(given)
    begun = time.monotonic()
    path = make(asked.out, [one for one in asked.extras.split(",") if one], asked.key)
    signed = "signed" if asked.key else "not signed (--key signs it)"
    size = path.stat().st_size / 1e6
    print(f"{path}: {size:.0f} MB, {signed}, made in {time.monotonic() - begun:.0f} s")


if __name__ == "__main__":
    main()
