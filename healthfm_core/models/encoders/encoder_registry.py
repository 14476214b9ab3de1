"""The encoders of all modalities, found by the files of this package.

Every file of the package with a ``FACTORY`` is the encoder of a modality.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from typing import Final

from healthfm_core.config import ModelConfig
from healthfm_core.modalities.registry import modality_names
from healthfm_core.models.encoders.modality_encoder import EncoderFactory

_PACKAGE: Final = __name__.rpartition(".")[0]


@cache
def _factories() -> dict[str, EncoderFactory]:
    """Return the factories by modality; made once, from the package's files."""
    folder = importlib.import_module(_PACKAGE).__path__
    modules = (
        importlib.import_module(f"{_PACKAGE}.{file.name}") for file in pkgutil.iter_modules(folder)
    )
    found = [module.FACTORY for module in modules if hasattr(module, "FACTORY")]
    return {factory.modality: factory for factory in found}


def register_encoder(factory: EncoderFactory) -> None:
    """Add the encoder of a modality that has no file in this package, for this process.

    Raises:
        ValueError: The modality has an encoder.
    """
    if factory.modality in _factories():
        raise ValueError(f"{factory.modality} has an encoder")
    _factories()[factory.modality] = factory


def unregister_encoder(modality: str) -> None:
    """Take an encoder out again that `register_encoder` added."""
    del _factories()[modality]


def encoder_factory(modality: str) -> EncoderFactory:
    """Return how the encoder of `modality` is built.

    Raises:
        KeyError: It has none.
    """
    return _factories()[modality]


def soft_tokens(config: ModelConfig) -> dict[str, int]:
    """Return modality → positions at the start of a row that its panel takes, if it has values."""
    return {name: encoder_factory(name).soft_tokens(config) for name in modality_names("panel")}
