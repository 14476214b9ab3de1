"""What a tag is published as: wheel, bundle, bill of materials, notes, signed checksums.

python -m distribution.release --key ~/.ssh/healthfm-release     # make release; docs/releasing.md
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path

from distribution.bundle import EXTRAS
from distribution.bundle import make as make_bundle
from distribution.sbom import sbom
from distribution.signatures import sha256, sign, write_sums
from distribution.wheels import ROOT, gather, own_wheel


def version(root: Path = ROOT) -> str:
    """Return the version of a checkout."""
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    return str(project["version"])


def notes(changelog: str, release: str) -> str:
    """Return a release's section of the changelog, without its heading.

    Raises:
        SystemExit: It has none.
    """
    wanted = rf"^## {re.escape(release)}\n(.*?)(?=^## |\Z)"
    found = re.search(wanted, changelog, re.MULTILINE | re.DOTALL)
    if found is None:
        raise SystemExit(f"CHANGELOG.md has no section ## {release}")
    return found[1].strip() + "\n"


def refuse_what_is_not_the_tag(root: Path = ROOT) -> str:
    """Return the version of a checkout that is exactly its tag.

    Raises:
        SystemExit: It has changes, no tag of its version, a commit since, or another version in
            CITATION.cff.
    """
    release = version(root)
    if _git(root, "status", "--porcelain"):
        raise SystemExit("the working tree has changes: commit them, or release a fresh clone")
    if f"v{release}" not in _git(root, "tag", "--points-at", "HEAD").split():
        raise SystemExit(f"HEAD is not tagged v{release}: git tag -s v{release}")
    if f"\nversion: {release}\n" not in (root / "CITATION.cff").read_text("utf-8"):
        raise SystemExit(f"CITATION.cff names another version than {release}")
    return release


def build_twice(folder: Path, root: Path = ROOT) -> Path:
    """Build the wheel in two fresh clones and return one of the two.

    Raises:
        SystemExit: They differ.
    """
    wheels = []
    for place in ("first", "second"):
        clone = folder / place / "healthfm"
        _git(root, "clone", "--quiet", "--no-hardlinks", str(root), str(clone))
        wheels.append(own_wheel(clone.parent, clone))
    if sha256(wheels[0]) != sha256(wheels[1]):
        raise SystemExit("two builds of the wheel differ: it is not reproducible on this machine")
    return wheels[0]


def make(out: Path, key: Path | None, extras: Sequence[str] = EXTRAS) -> Path:
    """Make all that a release is published as, and return its folder.

    Raises:
        SystemExit: This checkout is no release (see above), or its folder exists.
        subprocess.CalledProcessError: pip, the bill of materials or the signature failed.
    """
    release = refuse_what_is_not_the_tag()
    said = notes((ROOT / "CHANGELOG.md").read_text("utf-8"), release)
    final = out / f"v{release}"
    if final.exists():
        raise SystemExit(f"{final} exists: a release is made once")
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=".release-") as place:
        folder = Path(place) / "made"
        folder.mkdir()
        wheel = build_twice(Path(place))
        (folder / wheel.name).write_bytes(wheel.read_bytes())
        gather(wheel, extras, Path(place) / "wheels")
        bill = json.dumps(sbom(Path(place) / "wheels"), indent=1, sort_keys=True)
        (folder / "sbom.cdx.json").write_text(bill + "\n", "utf-8")
        (folder / "NOTES.md").write_text(said, "utf-8")
        make_bundle(folder, extras, key)
        sums = write_sums(folder)
        if key is not None:
            sign(sums, key)
        folder.rename(final)
    return final


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def main(given: Sequence[str] | None = None) -> None:
    """Make a release and say where it is."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="a folder (default: dist)")
    parser.add_argument("--key", type=Path, required=True, help="OpenSSH key that signs")
    asked = parser.parse_args(given)
    print(f"{make(asked.out, asked.key)}: publish this folder, and the key by another way")


if __name__ == "__main__":
    main(sys.argv[1:])
