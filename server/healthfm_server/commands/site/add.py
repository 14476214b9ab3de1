"""``site add``: another name of ``site sign``."""

from __future__ import annotations

from dataclasses import replace

from healthfm_server.commands.site import sign

COMMAND = replace(sign.COMMAND, help="the same as site sign")
