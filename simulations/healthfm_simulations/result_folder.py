"""The folder that a simulation leaves: made, gone on with, or taken away if nothing came of it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import yaml

from healthfm_core.config import RunConfig
from healthfm_core.config.compose import of_yaml, schema_keys, to_yaml
from healthfm_core.errors import HealthFMError, RunError

CONFIG_FILE: Final = "config.yaml"
RESUMED_KEYS: Final = ("out", "resume")
"""Keys that may differ between a run and the command that resumes it."""
INTERRUPTED: Final = 705
MOST_NAMED: Final = 5
"""Settings that a refusal names."""


def config_to_resume(given: Sequence[str], config: RunConfig) -> RunConfig:
    """Return the configuration of the run to go on with, where nothing else was asked for.

    Args:
        given: What stands on the command line.
        config: What that gives by itself.

    Raises:
        ConfigError: The run's file is none of this release's (HF-1xx).
    """
    asked = {item.partition("=")[0] for item in given}
    if not config.resume or config.out is None or asked - set(RESUMED_KEYS):
        return config
    file = Path(config.out) / CONFIG_FILE
    if not file.is_file():
        return config  # `result_folder` says that there is no run
    own = {name: getattr(config, name) for name in RESUMED_KEYS}
    return of_yaml(file).model_copy(update=own)


@contextmanager
def result_folder(config: RunConfig, out: Path) -> Iterator[None]:
    """Make the result folder, or check that it holds this very run.

    What is refused before anything was read leaves no folder behind.

    Raises:
        RunError: HF-701 nothing to resume, HF-702 another configuration, HF-704 folder in use.
    """
    file = out / CONFIG_FILE
    ours = config.model_copy(update={"out": None, "resume": False})
    if config.resume and not file.is_file():
        raise RunError(
            701,
            where=str(out),
            seen="there is no run in it",
            do="Leave resume out, or name the run's folder with out=",
        )
    if file.is_file() and (differing := _differing(file, ours)):
        raise RunError(
            702,
            where=str(file),
            seen=f"the run in it was begun with other settings: {differing}",
            do="Give out= and resume=true alone, which take the run's own, or another out=",
        )
    if not config.resume and out.exists() and any(out.iterdir()):
        raise RunError(
            704,
            where=str(out),
            seen="the folder is not empty",
            do="Add resume=true to go on with it, or give another out=",
        )
    was_there = out.exists()
    out.mkdir(parents=True, exist_ok=True)
    file.write_text(to_yaml(ours), encoding="utf-8")
    try:
        yield
    except HealthFMError as error:
        if not config.resume and error.number != INTERRUPTED:
            _take_away(out, whole=not was_there)
        raise


def _differing(file: Path, ours: RunConfig) -> str:
    """Return the settings in which a run's file differs, as ``train.lr`` was; empty: in none."""
    theirs = yaml.safe_load(file.read_text(encoding="utf-8"))
    now = yaml.safe_load(to_yaml(ours))
    if theirs == now:
        return ""
    told = [
        f"{key} was {_of(theirs, key)} and is {_of(now, key)} now"
        for key, field in schema_keys()
        if not hasattr(field.annotation, "model_fields") and _of(theirs, key) != _of(now, key)
    ]
    more = f" and {len(told) - MOST_NAMED} more" if len(told) > MOST_NAMED else ""
    return "; ".join(told[:MOST_NAMED]) + more or "a key that this release does not know"


def _of(values: Any, key: str) -> Any:
    for name in key.split("."):
        values = values.get(name) if isinstance(values, dict) else None
    return values


def _take_away(out: Path, *, whole: bool) -> None:
    """Remove a result folder in which nothing is but its configuration.

    Args:
        out: The folder.
        whole: Whether the folder itself goes, too.
    """
    if [path for path in out.rglob("*") if path.is_file()] != [out / CONFIG_FILE]:
        return
    for path in out.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    if whole:
        out.rmdir()
