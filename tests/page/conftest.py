"""What the tests of the two pages share."""

from __future__ import annotations

import pytest

from healthfm_client.page import command_looks


@pytest.fixture(autouse=True)
def looks_give_way_to_nobody(monkeypatch):
    """Beside other tests a look that gives way would wait for most of a minute."""
    monkeypatch.setattr(command_looks, "NICENESS", "0")
