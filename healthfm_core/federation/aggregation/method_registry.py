"""The aggregation algorithms by name: every module of this package that says `METHODS`.

Adding one is a module here, and its name among those that ``federation.aggregation.method`` takes.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from functools import lru_cache

from healthfm_core.federation import aggregation
from healthfm_core.federation.aggregation.aggregator import AggregationMethod


@lru_cache(maxsize=1)
def methods() -> Mapping[str, AggregationMethod]:
    """Return name → algorithm."""
    modules = [
        importlib.import_module(f"{aggregation.__name__}.{module.name}")
        for module in pkgutil.iter_modules(aggregation.__path__)
    ]
    methods = [method for module in modules for method in getattr(module, "METHODS", ())]
    return {method.name: method for method in methods}
