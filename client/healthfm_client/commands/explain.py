"""``explain MODEL STORE --subject ID --target CODE --out FILE``: why a person has a risk.

The page is about one person. It is written for the one who asked and for nobody else, and never
into a folder that is meant to be handed on.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from datetime import UTC, date, datetime, time
from pathlib import Path

from healthfm_client.site.private_file import check_stays, write_private
from healthfm_core.command_line import Command
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.stdout import say


def arguments(parser: ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("model", type=Path, metavar="MODEL_FOLDER", help="an exported model")
    parser.add_argument("store", type=Path, metavar="STORE", help="the site's store")
    parser.add_argument("--subject", type=int, required=True, metavar="ID", help="whose risk")
    parser.add_argument(
        "--target",
        action="append",
        required=True,
        metavar="CODE",
        help="a code the model predicts; may be given more than once",
    )
    parser.add_argument(
        "--horizon", type=float, default=365.0, metavar="DAYS", help="risk within so many [365]"
    )
    parser.add_argument(
        "--at", type=_day, metavar="DATE", help="explain the last visit up to YYYY-MM-DD [the last]"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="new HTML file")


def _day(text: str) -> int:
    """Return the end of a day, µs since 1970."""
    end = datetime.combine(date.fromisoformat(text), time.max, UTC)
    return round(end.timestamp() * 1e6)


def run(given: Namespace) -> int:
    """Explain, write the page, and say no more than where it is."""
    from healthfm_core.explain import explain, explanation_html  # here: they load PyTorch
    from healthfm_core.trained import TrainedModel

    check_stays(given.out)
    explanation = explain(
        TrainedModel.load(given.model),
        SiteStore.open(given.store),
        given.subject,
        targets=tuple(dict.fromkeys(given.target)),
        horizon_days=given.horizon,
        at_us=given.at,
    )
    write_private(given.out, explanation_html(explanation))
    say(f"{given.out}: about one person; only you can read it, and it stays at this site")
    return 0


COMMAND = Command("explain one person's predicted risk; the page stays here", run, arguments)
