"""A site's people as a study's tokens, on disk beside its store, so that they take no memory.

They are tokenised once: by a study's first round, for the next process and the next round they are
there. A cache is named by everything that it follows from: the stores' files, what of them may be
used, the vocabulary, how tokens are cut, and this release. It is whole or not there; when a store
changes it is used no more, and goes with the next that takes its place.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Final

import healthfm_core
from healthfm_core.data.batch.sequence_files import SequencesWriter, sequences_in
from healthfm_core.data.batch.sequences import Sequences
from healthfm_core.data.store.beside_store import draft_in, working_folder
from healthfm_core.data.store.joined_stores import StoreView
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.errors import StoreError
from healthfm_core.federation.protocol import Study
from healthfm_core.models.encoders.encoder_registry import soft_tokens
from healthfm_core.tokens.tokenizer import tokenized_parts
from healthfm_core.training.intercepts import subjects_with
from healthfm_core.training.loaders import loader_for

TRAIN: Final = "train"
TUNING: Final = "tuning"
KEPT: Final = 2
"""Caches of one store that stay, those used last."""
_SOURCES: Final = ("data", "modalities", "tokens")
"""Packages whose code decides what is in a cache."""


def tokens_of(
    stores: Sequence[StoreView], study: Study, splits: Sequence[str]
) -> dict[str, Sequences]:
    """Return a site's training and tuning people, from its cache, which is written if need be.

    Args:
        stores: The site's, one at least, of which no two share a person.
        study: Whose vocabulary, cuts and label.
        splits: Whose people train.

    Raises:
        StoreError: A store cannot be read (HF-2xx), is not what it was when it was opened
            (HF-214), or the disk is full (HF-213).
    """
    members = [member for store in stores for member in store.members]
    folder = working_folder(members[0].path)
    name = _name(members, study, splits)
    found = _opened(folder / name)
    if found is None:
        _write(folder, name, stores, study, splits)
        found = _opened(folder / name)
    if found is None or any(member.has_changed for member in members):
        shutil.rmtree(folder / name, ignore_errors=True)  # it may hold who was forgotten meanwhile
        raise StoreError(214, where=members[0].name)
    _link(folder / name, members[1:])
    _remove_others(folder, name)
    return found


def _name(members: Sequence[SiteStore], study: Study, splits: Sequence[str]) -> str:
    """Return a cache's name: which first store it is of, and all that it follows from."""
    config = study.config
    facts = [
        [member.version for member in members],
        study.vocabulary.hash,
        config.tokens.model_dump_json(),
        sorted(study.modalities),
        config.label_task,
        list(splits),
        sorted(soft_tokens(config.model).items()),
        _code_hash(),
    ]
    whole = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
    return f"{members[0].files_version[:16]}-{whole[:32]}"


@cache
def _code_hash() -> str:
    root, found = Path(healthfm_core.__file__).parent, hashlib.sha256()
    for package in _SOURCES:
        for file in sorted((root / package).rglob("*.py")):
            found.update(file.read_bytes())
    return found.hexdigest()


def _opened(place: Path) -> dict[str, Sequences] | None:
    """Return what is in a cache; None where it is not there, or not whole."""
    try:
        found = {name: sequences_in(place / name) for name in (TRAIN, TUNING)}
        os.utime(place)
    except (OSError, ValueError, KeyError):
        return None
    return found


def _write(
    folder: Path, name: str, stores: Sequence[StoreView], study: Study, splits: Sequence[str]
) -> None:
    with draft_in(folder) as draft:
        for part, of in ((TRAIN, splits), (TUNING, ("tuning",))):
            writer = SequencesWriter(draft / part)
            try:
                for split in of:
                    _append(writer, stores, study, split)
                writer.close()
            except OSError as error:
                if not draft.is_dir():
                    return  # somebody was forgotten meanwhile, and it went with them
                seen = error.strerror or "no reason"
                raise StoreError(213, where=stores[0].name, seen=seen) from error
            finally:
                writer.abandon()
        shutil.rmtree(folder / name, ignore_errors=True)  # of somebody who was cut off by the power
        try:
            draft.rename(folder / name)
        except OSError:
            return  # another process was as quick


def _append(writer: SequencesWriter, stores: Sequence[StoreView], study: Study, split: str) -> None:
    config = study.config
    for people in tokenized_parts(
        stores, study.vocabulary, config.tokens, split=split, task=config.label_task
    ):
        loader_for(people, study)  # which works out where each row begins
        subjects_with(people, len(study.vocabulary.targets))
        writer.append(people)


def _link(place: Path, others: Sequence[SiteStore]) -> None:
    """Note beside the other stores where their people's tokens are, so that they can be removed."""
    for store in others:
        link = working_folder(store.path) / place.name
        if not link.is_symlink():
            link.symlink_to(place.resolve(), target_is_directory=True)


def _remove_others(folder: Path, name: str) -> None:
    """Remove caches of what the store was before, and all but those used last."""
    mine = name.partition("-")[0]
    caches = [one for one in folder.iterdir() if not one.name.startswith(".")]
    of_now = [one for one in caches if one.name.startswith(mine) and not one.is_symlink()]
    latest = sorted(of_now, key=lambda one: one.stat().st_mtime_ns, reverse=True)[:KEPT]
    for one in caches:
        if one.is_symlink() and not one.exists():
            one.unlink(missing_ok=True)
        elif one not in latest and not one.is_symlink():
            shutil.rmtree(one, ignore_errors=True)
