"""Joining a study from the page: a kit, the ten words of its root, and stores."""

from __future__ import annotations

import base64
import binascii
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from healthfm_client.runtime.site_supervision import LOOPBACK
from healthfm_client.site.site_folder import JoinSettings, StoreChoice
from healthfm_client.site.site_home import SiteHome
from healthfm_client.site_store.shared_people import of_shared_people
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.data.store.store_files import MARKER_FILE, stores_below
from healthfm_core.errors import ConfigError, TrustError
from healthfm_core.supervised_start import can_listen
from healthfm_core.trust.kit import install_kit
from healthfm_core.trust.site_keys import SiteKeys

MOST_STORES: Final = 50
"""Stores nearby that a page offers."""
MOST_FOLDERS: Final = 500
"""Folders that are looked into for them."""


@dataclass(frozen=True)
class JoinWish:
    """What somebody asked for.

    Attributes:
        kit: The file's bytes; empty: the kit that is here.
        words: Of the root, as the coordinator read them.
        stores: Folders to take part with.
    """

    kit: bytes
    words: str
    stores: tuple[Path, ...]

    @classmethod
    def of_form(cls, form: Mapping[str, str]) -> Self:
        """Return what a form asks for.

        Raises:
            TrustError: The kit was cut short on its way (HF-806).
        """
        try:
            kit = base64.b64decode(form.get("kit", ""), validate=True)
        except (binascii.Error, ValueError) as error:
            raise TrustError(806, where="the kit", seen="it did not arrive whole") from error
        named = [*form.get("stores", "").splitlines(), form.get("other", "")]
        stores = tuple(Path(name.strip()) for name in named if name.strip())
        return cls(kit, form.get("words", "").strip(), stores)

    def take_in(self, home: SiteHome) -> None:
        """Install the kit, where there is none, and remember the stores.

        Raises:
            TrustError: No kit was given (HF-806), or it is another's (HF-80x), or its root's words
                differ or were not given (HF-809).
            ConfigError: No store was named (HF-103).
            StoreError: A store cannot be used, or two contradict each other (HF-2xx).
        """
        if not self.stores and not home.settings_file.is_file():
            raise ConfigError(
                103,
                where="join",
                seen="no store was chosen",
                wanted="a folder that healthfm-client ingest wrote, at least",
                do="Choose one of the list, or write its path",
            )
        paths = [path for folder in self.stores for path in stores_below(folder)]
        of_shared_people([SiteStore.open(path) for path in paths])
        if not home.has_kit():
            self._install(home)
        if self.stores:
            kept = home.settings().model_dump() if home.settings_file.is_file() else {}
            stores = tuple(StoreChoice(path=path.resolve()) for path in self.stores)
            settings = JoinSettings.model_validate({**kept, "stores": stores})
            home.write_settings(settings if kept else _with_free_port(settings))

    def _install(self, home: SiteHome) -> None:
        if not self.kit:
            raise TrustError(806, where="the kit", seen="no file was chosen")
        if not self.words:
            raise TrustError(
                809,
                where="the kit's root",
                seen="no words were given",
                wanted="the ten words that the coordinator reads to you",
                do="Telephone the coordinator",
            )
        keys = SiteKeys.load(home.keys)
        install_kit(self.kit, home.study, keys, root_fingerprint=self.words)


def _with_free_port(settings: JoinSettings) -> JoinSettings:
    """Return settings whose port no other program has: several sites may share a machine."""
    if can_listen(LOOPBACK, settings.port):
        return settings
    with socket.create_server((LOOPBACK, 0)) as free:
        return settings.model_copy(update={"port": free.getsockname()[1]})


def stores_nearby(home: SiteHome) -> list[Path]:
    """Return stores in the site's folder, beside it, and in folders there, by path."""
    here, looked = home.path.resolve(), 0
    found: set[Path] = set()
    folders = [here, here.parent]
    for depth in range(3):
        deeper: list[Path] = []
        for folder in folders:
            looked += 1
            if looked > MOST_FOLDERS or len(found) >= MOST_STORES:
                return sorted(found)
            if (folder / MARKER_FILE).is_file():
                found.add(folder)
            elif depth < 2:
                deeper += _folders_in(folder)
        folders = deeper
    return sorted(found)


def _folders_in(folder: Path) -> list[Path]:
    try:
        inside = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
        return [path for path in inside if path.is_dir() and not path.is_symlink()]
    except OSError:  # not ours to look into
        return []
