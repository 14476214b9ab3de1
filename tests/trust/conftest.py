"""A study's authority, a site's keys and request, made once and never written to."""

from __future__ import annotations

from pathlib import Path

import pytest

from healthfm_core.trust.authority import Authority
from healthfm_core.trust.request import make_request
from healthfm_core.trust.site_keys import SiteKeys

URL = "https://study.example.org:8443"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.create(tmp_path / "authority", "heart")


@pytest.fixture
def keys(tmp_path: Path) -> SiteKeys:
    return SiteKeys.create(tmp_path / "keys")


@pytest.fixture
def request_file(keys: SiteKeys) -> bytes:
    return make_request(keys, "north", URL, ["ehr", "wearable"])
