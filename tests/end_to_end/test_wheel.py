"""What is installed, and what a coordinator's bundle holds."""

import io
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
from flwr.cli.build import build_fab_from_disk

from distribution.signatures import sha256
from distribution.wheels import own_wheel
from healthfm_core.kernels.ct_attention.cpu import compiled
from tests.compiled_kernel import needs_compiler

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {"healthfm_core", "healthfm_server", "healthfm_client", "healthfm_simulations"}
PIP = (sys.executable, "-m", "pip")
ALONE = ("--quiet", "--no-deps", "--no-index")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(
        [*PIP, "wheel", *ALONE, "--no-build-isolation", "--wheel-dir", folder, ROOT],
        cwd=folder,
    )
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """A fresh environment with the wheel; third-party packages are lent by this one."""
    folder = tmp_path_factory.mktemp("fresh")
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    run(
        [*PIP, "--python", python, "install", *ALONE, wheel],
        cwd=folder,
    )
    own = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    (own / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin"


@pytest.fixture
def empty(tmp_path) -> Path:
    folder = tmp_path / "empty"
    folder.mkdir()
    return folder


def run(command: list[str | Path], cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done


def test_the_wheel_holds_the_four_packages_and_the_configs_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == PACKAGES
    shipped = {
        name.removeprefix("healthfm_core/config/configs/")
        for name in names
        if name.startswith("healthfm_core/config/configs/")
    }
    folder = ROOT / "configs"
    assert shipped == {str(file.relative_to(folder)) for file in folder.rglob("*.yaml")}
    assert {f"{package}/py.typed" for package in PACKAGES} <= set(names)


@pytest.mark.deployment
def test_two_builds_from_two_folders_are_one_wheel_to_the_byte(wheel, tmp_path):
    """The second compiles the attention again: no path and no time is in what comes out."""
    copy = tmp_path / "another" / "place"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, copy / name)
    again = own_wheel(tmp_path, copy)
    assert again.name == wheel.name
    assert sha256(again) == sha256(wheel)


def test_the_wheel_holds_every_file_of_the_packages(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for parent in (ROOT, ROOT / "server", ROOT / "client", ROOT / "simulations"):
        for package in PACKAGES:
            files = [f for f in (parent / package).rglob("*") if f.is_file()]
            ours = {str(f.relative_to(parent)) for f in files if "__pycache__" not in f.parts}
            assert ours <= names


def test_an_installed_wheel_composes_its_own_configs_in_an_empty_folder(installed, empty):
    program = (
        "import healthfm_core, healthfm_core.config.compose as c;"
        "assert c.packaged_configs().parts[-3:] == ('healthfm_core', 'config', 'configs');"
        "print(healthfm_core.__file__, c.compose(['data=physionet2012', 'rounds=3']).name)"
    )
    where, name = run([installed / "python", "-c", program], cwd=empty).stdout.split()
    assert Path(where).is_relative_to(installed.parent)
    assert name == "physionet2012"


@needs_compiler
def test_an_installed_wheel_brings_the_compiled_attention_to_a_site_without_a_compiler(
    installed, empty
):
    done = run([installed / "healthfm-client", "doctor"], cwd=empty)
    assert f"attention   compiled ({compiled.instructions()})" in done.stdout


@pytest.mark.parametrize("script", ["healthfm-simulate", "healthfm-client", "healthfm-server"])
def test_an_installed_command_explains_itself_in_an_empty_folder(installed, empty, script):
    done = run([installed / script, "--help"], cwd=empty)
    assert script in done.stdout
    assert list(empty.iterdir()) == []


def test_a_coordinator_s_bundle_holds_no_code(tmp_path):
    made_here = shutil.ignore_patterns(".*", "runs", "dist", "build", "__pycache__")
    app = shutil.copytree(ROOT, tmp_path / "app", ignore=made_here)
    assert (app / "healthfm_core" / "errors.py").is_file()
    bundle = zipfile.ZipFile(io.BytesIO(build_fab_from_disk(app)))
    kinds = {Path(name).suffix for name in bundle.namelist() if not name.startswith(".info/")}
    assert kinds == {".toml", ".md", ".yaml"}
