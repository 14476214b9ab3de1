"""``describe STORE``: what a site holds, with counts under k withheld: text, JSON or a page."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from healthfm_client.site_store.description.description_page import page, write_page
from healthfm_client.site_store.description.facts import describe
from healthfm_client.site_store.description.score_facts import read_panel
from healthfm_client.site_store.shared_people import of_shared_people
from healthfm_core.command_line import Command
from healthfm_core.data.store.set_aside_share import MOST
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.data.store.store_files import stores_below
from healthfm_core.stdout import say


def arguments(parser: ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("store", type=Path, metavar="STORE", help="a store, or a folder of stores")
    parser.add_argument("--json", action="store_true", help="one JSON list instead of text")
    parser.add_argument("--html", type=Path, metavar="FILE", help="a page of it, too; a new file")
    parser.add_argument("--k", type=int, default=20, help="withhold counts under k [20]")
    parser.add_argument(
        "--panel", type=Path, metavar="PATH", help="the study's scores: a model, or names in a file"
    )


def run(given: Namespace) -> int:
    """Describe each store."""
    panel = None if given.panel is None else read_panel(given.panel)
    stores = [SiteStore.open(path) for path in stores_below(given.store)]
    descriptions = [describe(store, max(given.k, 1), panel) for store in stores]
    if given.html is not None:
        write_page(given.html, page(descriptions))
    if given.json:
        say(json.dumps(descriptions, indent=2, ensure_ascii=False))
    else:
        parts = [as_text(one) for one in descriptions]
        shared = of_shared_people(stores, max(given.k, 1))
        say("\n\n".join([*parts, shared] if shared else parts))
    return 0


def as_text(description: dict[str, Any]) -> str:
    """Return a description as lines; what is withheld says so."""

    def shown(count: object) -> str:
        if isinstance(count, float):
            return f"{count:.1%}"
        return (
            "withheld" if count is None else f"{count:,}" if isinstance(count, int) else str(count)
        )

    def row(name: str, facts: dict[str, Any]) -> str:
        plain = {key: value for key, value in facts.items() if not isinstance(value, list | dict)}
        facts_text = (f"{key.replace('_', ' ')} {shown(v)}" for key, v in plain.items())
        return f"  {name:<28}" + "  ".join(facts_text)

    years = description["years"]
    people = description["subjects"]
    count = f"fewer than {description['withheld_under']}" if people is None else shown(people)
    lines = [f"{description['name']}: {count} subjects"]
    lines.append(row("splits", description["splits"]))
    lines += [row(name, facts) for name, facts in description["modalities"].items()]
    lines.append(f"  {'years':<28}{f'{years[0]} to {years[1]}' if years else 'withheld'}")
    lines.append(row("codes", description["codes"]))
    lines += [
        f"    {name:<40} {shown(n)}" for name, n in description["codes"]["most_common"].items()
    ]
    for name, units in description["units_apart"].items():
        lines.append(f"  {'in units that do not meet':<28}{name}: {', '.join(units)}")
    if description["scores"]["scores"]:
        lines.append(row("polygenic scores", description["scores"]))
    lines += [row(f"label {task}", facts) for task, facts in description["labels"].items()]
    if description["rejected"]:
        lines.append(row("set aside", description["rejected"]))
        if description["set_aside_share"] > MOST:
            of = f"{100 * description['set_aside_share']:.1f} % of all rows"
            lines.append(f"  {'':<28}{of}: look at how it was read in")
    if description["not_read"]:
        lines.append(row("not read", description["not_read"]))
    return "\n".join(lines)


COMMAND = Command("summarise what a store holds; small counts are withheld", run, arguments)
