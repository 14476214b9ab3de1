"""The container files say what docs/install.md promises of them."""

from __future__ import annotations

from pathlib import Path

import yaml

FOLDER = Path(__file__).resolve().parents[2] / "distribution"


def test_every_service_is_read_only_without_rights_and_watched():
    services = yaml.safe_load((FOLDER / "compose.yaml").read_text("utf-8"))["services"]
    assert set(services) == {"site", "coordinator"}
    for service in services.values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert "supervisorctl" in service["healthcheck"]["test"]
        assert service["command"][-1] == "--foreground"


def test_the_image_is_made_from_the_bundle_alone_and_is_not_roots():
    lines = (FOLDER / "Containerfile").read_text("utf-8").splitlines()
    words = [line.split()[0] for line in lines if line and line[0].isupper()]
    assert "ADD" not in words
    assert [line for line in lines if line.startswith("USER ")] == ["USER 10001:10001"]
    assert any(line.startswith("HEALTHCHECK ") for line in lines)
    assert not any("pip install" in line or "http" in line for line in lines)
