"""The installer of a bundle: what it refuses, and what it leaves when it does."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from distribution.signatures import sign, write_sums
from distribution.wheels import requirements

ROOT = Path(__file__).resolve().parents[2]
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
STAND_IN = "import sys\ndef main():\n    print('healthfm-client', '7.0')\n"
"""Of the packages, which take minutes to install: `make bundle` and docs/install.md have those."""


@pytest.fixture
def bundle(tmp_path) -> Path:
    """A bundle of one small wheel that is called as ours."""
    folder = tmp_path / "bundle"
    (folder / "wheels").mkdir(parents=True)
    with zipfile.ZipFile(folder / "wheels" / "healthfm-7.0-py3-none-any.whl", "w") as wheel:
        about = "healthfm-7.0.dist-info/"
        wheel.writestr("stand_in.py", STAND_IN)
        wheel.writestr("vendored/other-1.0.dist-info/METADATA", "Name: other\nVersion: 1.0\n")
        wheel.writestr(about + "METADATA", "Metadata-Version: 2.1\nName: healthfm\nVersion: 7.0\n")
        wheel.writestr(about + "WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        scripts = "[console_scripts]\nhealthfm-client = stand_in:main\n"
        wheel.writestr(about + "entry_points.txt", scripts)
        wheel.writestr(about + "RECORD", "")
    (folder / "requirements.txt").write_text(requirements(folder / "wheels"))
    (folder / "python-version").write_text(f"{PYTHON}\n")
    (folder / "platform").write_text(f"{platform.system().lower()}_{platform.machine()}\n")
    (folder / "version").write_text("7.0\n")
    shutil.copy(ROOT / "distribution" / "install.sh", folder)
    write_sums(folder)
    return folder


@pytest.fixture
def key(tmp_path) -> Path:
    """A signing key, and beside it who may sign."""
    if shutil.which("ssh-keygen") is None:
        pytest.skip("ssh-keygen (OpenSSH), which signs bundles, is not installed")
    path = tmp_path / "release"
    made = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(path)]
    subprocess.run(made, check=True)
    public = path.with_suffix(".pub").read_text()
    (tmp_path / "allowed_signers").write_text(f"maintainer@healthfm.example {public}")
    return path


def install(bundle: Path, *given: str, prefix: Path | None = None) -> tuple[int, str]:
    """Run the installer; return its exit code and all it said."""
    target = prefix or bundle.parent / "prefix"
    command = ["sh", str(bundle / "install.sh"), "--prefix", str(target), *given]
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.defpath}"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    return done.returncode, done.stdout + done.stderr


def test_a_bundle_is_installed_again_and_taken_off_and_a_failure_leaves_what_was_there(bundle, key):
    sign(bundle / "SHA256SUMS", key)
    signers = ("--allowed-signers", str(key.with_name("allowed_signers")))
    prefix = bundle.parent / "prefix"
    code, said = install(bundle, *signers)
    assert code == 0, said
    assert "Signed by maintainer@healthfm.example." in said
    assert "Installed healthfm-client 7.0" in said
    first = (prefix / "pyvenv.cfg").stat().st_ino
    requirement = bundle / "requirements.txt"
    requirement.write_text(requirement.read_text().replace("sha256:", "sha256:0"))
    write_sums(bundle)
    code, said = install(bundle)
    assert (code, "what was there before is as it was" in said) == (1, True)
    assert (prefix / "pyvenv.cfg").stat().st_ino == first
    assert not (bundle.parent / "prefix.previous").exists()
    assert install(bundle, "--uninstall")[0] == 0
    assert not prefix.exists()


def changed(bundle: Path) -> None:
    (bundle / "requirements.txt").write_text("healthfm==6.0\n")


def added(bundle: Path) -> None:
    (bundle / "wheels" / "other-1.0-py3-none-any.whl").write_bytes(b"")


def of_another_python(bundle: Path) -> None:
    (bundle / "python-version").write_text("2.7\n")
    write_sums(bundle)


def of_another_platform(bundle: Path) -> None:
    (bundle / "platform").write_text("linux_s390x\n")
    write_sums(bundle)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (changed, "a file is not the one that was packed"),
        (added, "files lie here that SHA256SUMS does not name"),
        (of_another_python, "this bundle is for Python 2.7, which is not here"),
        (of_another_platform, "this bundle is for linux_s390x"),
    ],
)
def test_what_is_not_the_bundle_that_was_made_or_not_for_this_machine_is_refused(
    bundle, spoil, says
):
    spoil(bundle)
    code, said = install(bundle)
    assert (code, says in said) == (1, True), said
    assert not (bundle.parent / "prefix").exists()


def test_a_bundle_that_somebody_else_signed_or_changed_after_is_refused(bundle, key, tmp_path):
    allowed = ("--allowed-signers", str(tmp_path / "allowed_signers"))
    assert "is not signed" in install(bundle, *allowed)[1]
    sign(bundle / "SHA256SUMS", key)
    changed(bundle)
    write_sums(bundle)
    assert "do not use this bundle" in install(bundle, *allowed)[1]
    (tmp_path / "allowed_signers").write_text(
        "other@healthfm.example ssh-ed25519 "
        "AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f\n"
    )
    code, said = install(bundle, *allowed)
    assert (code, "nobody named in" in said) == (1, True), said


def test_what_the_installer_did_not_make_is_neither_replaced_nor_removed(bundle, tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "kept").touch()
    for given in ((), ("--uninstall",)):
        code, said = install(bundle, *given, prefix=mine)
        assert (code, "was not made by this installer" in said) == (1, True)
    assert (mine / "kept").exists()


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shellcheck_finds_nothing_in_the_installer():
    command = ["shellcheck", str(ROOT / "distribution" / "install.sh")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
