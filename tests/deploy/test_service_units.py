"""What systemd and Podman are given to start: by whom it runs, where it may write."""

from __future__ import annotations

import configparser
import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from healthfm_core.service_units import say_of_root
from healthfm_core.supervision import Program, Supervision
from healthfm_server.deploy import study_supervision
from healthfm_server.deploy.study_folder import StudyFolder, StudySettings

MOST_EXPOSED = 3.0
"""Of `systemd-analyze security`, from 0 (closed) to 10."""
COMMAND = ("healthfm-client", "join", "--site", "a site with 100 % of it", "--foreground")
needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None,
    reason="systemd-analyze, which judges the units as systemd will, comes with systemd alone",
)


@pytest.fixture
def written(tmp_path) -> tuple[Path, Path]:
    """The unit and the Quadlet of a site in a folder whose name has to be escaped."""
    folder = tmp_path / "a site with 100 % of it" / "process"
    supervised = Supervision(folder, [Program("node", [sys.executable, "-V"])], {})
    unit, quadlet = supervised.write_units(
        supervised.service("healthfm-site", "HealthFM, north", COMMAND)
    )
    return unit, quadlet


def values_of(unit: Path, section: str) -> dict[str, str]:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str
    parser.read(unit, "utf-8")
    return dict(parser[section])


def test_the_unit_starts_the_site_again_whenever_it_ends(written):
    service = values_of(written[0], "Service")
    assert service["Restart"] == "always"
    assert service["LimitNOFILE"] == "65536"
    tool = Path(sys.executable).with_name("healthfm-client")
    assert service["ExecStart"] == f'{tool} join --site "a site with 100 %% of it" --foreground'


@needs_systemd
def test_systemd_finds_nothing_wrong_with_the_unit(written):
    verify = ["systemd-analyze", "verify", "--man=no", str(written[0])]
    done = subprocess.run(verify, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@needs_systemd
def test_the_unit_leaves_little_open(written):
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager"]
    command += [f"--threshold={MOST_EXPOSED * 10:.0f}", str(written[0])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout.splitlines()[-1]
    assert "Overall exposure level" in done.stdout


def test_the_account_that_owns_the_folder_runs_it_and_writes_there_alone(tmp_path):
    site = tmp_path / "site"
    site.mkdir()
    if os.geteuid() == 0:
        os.chown(site, pwd.getpwnam("nobody").pw_uid, -1)
    supervised = Supervision(site / "process", [], {})
    unit, _ = supervised.write_units(supervised.service("healthfm-site", "", COMMAND))
    service = values_of(unit, "Service")
    assert service["User"] == site.owner()
    assert service["ReadWritePaths"] == str(site)
    assert service["ProtectSystem"] == "strict"


def test_who_would_run_it_all_as_root_is_told(tmp_path, monkeypatch):
    assert say_of_root(Path("/")) is not None
    monkeypatch.setattr(
        Path, "stat", lambda self: os.stat_result([0o40700, 1, 1, 1, 65534] + [0] * 5)
    )
    assert say_of_root(tmp_path) is None


def test_a_socket_that_does_not_fit_into_the_folder_is_not_hidden_in_a_tmp_of_its_own(
    tmp_path_factory,
):
    """Else `status`, which looks for it in the system's /tmp, says that nothing runs."""
    short = tmp_path_factory.mktemp("s")
    for folder, own in ((short, "yes"), (short.joinpath(*["folder"] * 20), "no")):
        supervised = Supervision(folder / "process", [], {})
        unit, _ = supervised.write_units(supervised.service("healthfm-site", "", COMMAND))
        assert values_of(unit, "Service")["PrivateTmp"] == own


def test_a_container_writes_in_the_study_s_folder_alone_and_publishes_the_gateway(tmp_path):
    settings = StudySettings(study="heart", hosts=("127.0.0.1",), port=8443)
    study = StudyFolder.create(tmp_path / "study", settings)
    _, path = study_supervision.write_units(study)
    container = values_of(path, "Container")
    assert container["ReadOnly"] == "true"
    assert container["Volume"] == f"{study.path}:{study.path}:Z"
    assert container["PublishPort"] == "8443:8443"
    assert container["Exec"] == f"healthfm-server up --study {study.path} --foreground"
    assert container["HealthCmd"].endswith("supervisord.conf status")
