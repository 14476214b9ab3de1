"""Import Flower once without the deprecation its dependency typer causes in click at import."""

from __future__ import annotations

import warnings

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message="'click", category=DeprecationWarning)
    import flwr.app
    import flwr.clientapp
    import flwr.serverapp  # noqa: F401
