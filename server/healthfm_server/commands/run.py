"""``run``: order a run of the study."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from healthfm_core.command_line import Command
from healthfm_core.config.setting_words import setting_words
from healthfm_core.shell_completion import takes_settings
from healthfm_core.stdout import say
from healthfm_server.commands import study_of, takes_study
from healthfm_server.commands.wait import wait_for
from healthfm_server.deploy.run_ordering import RunWish, order_run, ordered_details
from healthfm_server.deploy.study_status import dry_run_lines, run_status


def arguments(parser: ArgumentParser) -> None:
    """Add the run's settings, its name and how many sites it waits for."""
    takes_study(parser)
    settings = parser.add_argument(
        "settings",
        nargs="*",
        help="a root file (configs/study.yaml), then group=option or key=value",
    )
    takes_settings(settings, setting_words)
    parser.add_argument("--name", help="the run's name (default: run-1, run-2, ...)")
    parser.add_argument(
        "--nodes",
        type=int,
        help="sites to wait for (default: all that are admitted when it begins)",
    )
    parser.add_argument(
        "--sites",
        type=lambda text: tuple(text.split(",")),
        default=(),
        metavar="A,B",
        help="the sites that it is for, by name (default: all)",
    )
    parser.add_argument(
        "--even-so",
        action="store_true",
        help="go on where the sites' codes hardly meet (federation.min_shared_codes=0)",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="only ask each site whether it would begin, and say what the run would take",
    )
    parser.add_argument("--wait", action="store_true", help="say what happens until it ends")


def run(given: Namespace) -> int:
    """Order a run."""
    study = study_of(given)
    wish = RunWish(
        settings=tuple(given.settings),
        name=given.name or "",
        sites=given.sites,
        nodes=given.nodes,
        even_so=given.even_so,
        dry_run=given.dry_run,
    )
    order, config = order_run(study, wish)
    study.audit("command").note("run ordered", ordered_details(order))
    if order.is_dry_run:
        say(f"dry run {order.name} is ordered: each site is asked, nothing is computed")
        wait_for(order, study)
        for line in dry_run_lines(run_status(order, study.sites.sites())["dry_run"]):
            say(line)
        return 0
    whom = f" for {', '.join(order.sites)}" if order.sites else ""
    say(f"run {order.name} is ordered{whom}: {config.federation.rounds} rounds")
    if given.wait:
        wait_for(order, study)
    return 0


COMMAND = Command("order a run", run, arguments)
