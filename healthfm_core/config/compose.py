"""From YAML groups and command-line overrides to a `RunConfig`: the only importer of Hydra."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import NoneType
from typing import Any, Final, get_args

import hydra
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from healthfm_core.config import deprecated, renamed
from healthfm_core.config.run import RunConfig
from healthfm_core.errors import ConfigError

ALIASES: Final = {"rounds": "federation.rounds"}
"""Short names the command line takes."""

GROUPS: Final = tuple(
    name
    for name, field in RunConfig.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
)
"""Names that choose a file (``model=tiny``); each is a folder of ``configs/``."""


def compose(
    overrides: Sequence[str], config_dir: Path | None = None, *, root: str = "simulate"
) -> RunConfig:
    """Return the configuration that `overrides` give over ``<root>.yaml`` and its groups.

    An override is ``group=option`` (``model=tiny``) or ``key=value`` (``train.lr=1e-3``, lists as
    ``[a,b]``). The order of strength: the schemas' defaults, the root, ``data=``, the other groups,
    then every ``key=value`` wherever it stands.

    Args:
        overrides: What stands on the command line.
        config_dir: Folder of YAML files; the packaged one by default.
        root: File of `config_dir` to start from, without ``.yaml``.

    Raises:
        ConfigError: HF-101 for an unknown or renamed key, HF-102 for a wrong value, HF-103 for
            values that contradict each other, HF-104 for a missing folder, root or group option.
    """
    folder = packaged_configs() if config_dir is None else config_dir.resolve()
    if not (folder / f"{root}.yaml").is_file():
        raise ConfigError(
            104,
            where=str(folder),
            seen=f"there is no {root}.yaml",
            wanted="a folder of configurations holds its root",
            do="Name the folder that does, or install the package again",
        )
    ours = [_for_hydra(override, folder) for override in overrides]
    try:
        with hydra.initialize_config_dir(str(folder), version_base="1.3"):
            composed = hydra.compose(root, ours)
        values = OmegaConf.to_container(composed, resolve=True)
    except (HydraException, OmegaConfBaseException, yaml.YAMLError) as error:
        raise _unreadable(folder, error) from error
    return _checked(values)


def of_yaml(file: Path) -> RunConfig:
    """Return the configuration that `to_yaml` wrote to a file.

    Raises:
        ConfigError: It cannot be read (HF-102), or is none of this release's (HF-101, HF-102,
            HF-103).
    """
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise _unreadable(file, error) from error
    return _checked(values)


def _checked(values: Any) -> RunConfig:
    values = deprecated.under_new_names(values, deprecated.RUN)
    renamed.RUN.refuse(values)
    try:
        config = RunConfig.model_validate(values)
    except ValidationError as error:
        raise _refusal(error) from None
    config.check_horizons()
    config.check_objectives()
    return config


def to_yaml(config: RunConfig) -> str:
    """Return the whole configuration as YAML, every default written out."""
    return OmegaConf.to_yaml(OmegaConf.create(config.model_dump(mode="json")))


def packaged_configs() -> Path:
    """Return the folder of ``configs/``: inside an installed wheel, else the checkout's own."""
    here = Path(__file__).resolve()
    installed = here.parent / "configs"
    return installed if installed.is_dir() else here.parents[2] / "configs"


def options(group: str, folder: Path | None = None) -> tuple[str, ...]:
    """Return the names that ``<group>=`` takes, sorted."""
    files = ((folder or packaged_configs()) / group).glob("*.yaml")
    return tuple(sorted(file.stem for file in files))


def schema_keys(
    model: type[BaseModel] = RunConfig, prefix: str = ""
) -> Iterator[tuple[str, FieldInfo]]:
    """Yield every dotted key of the schema with its field; a section, then what is in it."""
    for name, field in model.model_fields.items():
        yield f"{prefix}{name}", field
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from schema_keys(field.annotation, f"{prefix}{name}.")


def _for_hydra(override: str, folder: Path) -> str:
    """Check one override and put it in Hydra's words; every value is the schema's to judge."""
    key, equals, value = override.partition("=")
    key = ALIASES.get(key.lstrip("+"), key.lstrip("+"))
    key = deprecated.key_now(key, deprecated.RUN)
    if not equals or not key or key.startswith("~"):
        raise ConfigError(
            101,
            where=override,
            seen="it sets nothing",
            wanted="an override is key=value or group=option",
            do=f"Write {_nearest(key)}=...",
        )
    renamed.RUN.refuse({key: value})
    if key in GROUPS:
        _check_option(key, value, folder)
        return f"{key}={value}"
    field = dict(schema_keys()).get(key)
    if field is None and not key.startswith(_open_prefixes()):
        raise _unknown(key)
    text = field is not None and set(get_args(field.annotation) or {field.annotation}) <= {
        str,
        NoneType,
    }
    return f"++{key}={_quoted(value) if text and value != 'null' else _parsable(value)}"


def _check_option(group: str, option: str, folder: Path) -> None:
    known = options(group, folder)
    if option in known:
        return
    close = difflib.get_close_matches(option, known, n=1)
    raise ConfigError(
        104,
        where=f"{group}={option}",
        seen="there is no such file",
        wanted=f"{group} is one of {', '.join(known) or '(none here)'}",
        do=f"Write {group}={close[0] if close else (known or ('...',))[0]}",
    )


def _open_prefixes() -> tuple[str, ...]:
    """Keys under which any name may stand (a site's name, for example)."""
    return tuple(
        f"{key}."
        for key, field in schema_keys()
        if getattr(field.annotation, "__origin__", None) is dict
    )


def _parsable(value: str) -> str:
    """Return `value` as it is when Hydra's grammar reads one plain value, else quoted."""
    try:
        parsed = OverridesParser.create().parse_override(f"key={value}")
    except HydraException:
        return _quoted(value)
    return _quoted(value) if parsed.is_sweep_override() else value


def _quoted(value: str) -> str:
    if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        return value
    escaped = value.replace("\\'", "\\\\'").replace("'", "\\'")
    return f"'{escaped}'"


def _nearest(key: str) -> str:
    """Return the valid key most like `key`: as a whole, or one whose last word is most like it."""
    keys = [*ALIASES, *(name for name, _ in schema_keys())]
    last = key.rsplit(".", 1)[-1]

    def likeness(name: str) -> float:
        whole = difflib.SequenceMatcher(None, key, name).ratio()
        ending = difflib.SequenceMatcher(None, last, name.rsplit(".", 1)[-1]).ratio()
        return max(whole, 0.9 * ending)

    return max(keys, key=likeness)


def _unknown(key: str) -> ConfigError:
    return ConfigError(
        101,
        where=key,
        seen="no such key",
        wanted=f"the nearest one is {_nearest(key)}",
        do="Correct the key; healthfm_core/config lists them all",
    )


def _refusal(error: ValidationError) -> ConfigError:
    """Turn the schema's first complaint into one sentence."""
    first = error.errors(include_url=False)[0]
    key = ".".join(map(str, first["loc"]))
    if first["type"] == "extra_forbidden":
        return _unknown(key)
    wanted = first["msg"].removeprefix("Value error, ").replace("Input should be", "it should be")
    if first["type"] == "value_error":
        return ConfigError(
            103,
            where=key or "the configuration",
            seen="its values do not go together",
            wanted=wanted,
            do="Change one of them",
        )
    return ConfigError(
        102,
        where=key,
        seen=f"{_shown(first['input'])} was given",
        wanted=wanted,
        do=f"Give {key}=... another value",
    )


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _unreadable(folder: Path, error: Exception) -> ConfigError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return ConfigError(102, where=str(folder), seen=reason, wanted="YAML that composes is wanted")
