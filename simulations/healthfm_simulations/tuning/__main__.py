"""``healthfm-tune``: choose settings by federated tuning metrics, without the test people."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import yaml
from rich.console import Console

from healthfm_core.command_line import told_version
from healthfm_core.config import RunConfig
from healthfm_core.config.compose import compose, to_yaml
from healthfm_core.config.setting_words import setting_words
from healthfm_core.console import exit_code
from healthfm_core.errors import ConfigError, RunError
from healthfm_core.owner_only import owner_only
from healthfm_core.shell_completion import add_completion, takes_settings
from healthfm_simulations.tuning.tune_plan import TunePlan, read_tune_plan

SEARCH_FILE: Final = "search.yaml"
"""What a search was begun with; one that goes on has the same."""
PLAN_KEYS: Final = ("metric", "trials", "seeds", "folds", "pruner")


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return the process's exit code."""
    options = _parser().parse_args(arguments)
    given = sys.argv[1:] if arguments is None else arguments
    stopped = "Stopped. The same command goes on from the last finished round."
    with owner_only():
        return exit_code(lambda: _run(options, list(given)), stopped=stopped)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="healthfm-tune",
        allow_abbrev=False,
        description="Searches settings of healthfm-simulate's federated arm (Optuna: TPE, pruned "
        "by rounds). Each trial is trained by the sites and judged by the mean of their tuning "
        "people's metric. Nobody who is scored later is in the stores it trains at. The same "
        "command goes on with a search that was stopped or killed.",
    )
    parser.add_argument("--version", action="version", version=told_version("healthfm-tune"))
    add_completion(parser)
    overrides = parser.add_argument(
        "overrides", nargs="*", help="group=option or key=value, as there"
    )
    takes_settings(overrides, setting_words)
    parser.add_argument(
        "--plan", default="network", help="a file of configs/tune, or one's own .yaml: what varies"
    )
    parser.add_argument("--metric", help="federated tuning metric to raise")
    parser.add_argument("--trials", type=int, metavar="N", help="settings tried, in all")
    parser.add_argument("--seeds", type=int, metavar="N", help="seeds of each trial")
    parser.add_argument("--folds", type=int, metavar="N", help="folds of each trial")
    parser.add_argument("--pruner", help="median, hyperband or none")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="its folder; runs/tune/<name of the run>"
    )
    return parser


def _run(options: argparse.Namespace, given: list[str]) -> int:
    plan = read_tune_plan(options.plan, {key: getattr(options, key) for key in PLAN_KEYS})
    overrides = tuple(options.overrides)
    config = compose(overrides)
    _refuse_what_a_search_cannot_have(config)
    out = options.out or Path("runs") / "tune" / config.name
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    command = shlex.join(["healthfm-tune", *given])
    console.print(f"{command}\nresults in {out}", markup=False)
    out.mkdir(parents=True, exist_ok=True)

    def say(line: str) -> None:
        console.print(line, markup=False, soft_wrap=True)

    from healthfm_server.run_folder.file_lock import held  # here: Flower and torch take seconds

    with held(out / ".lock", f"search {out.name}"):
        _keep_or_check(out / SEARCH_FILE, plan, config)
        return _search(plan, overrides, config, out, command, say, console)


def _search(
    plan: TunePlan,
    overrides: tuple[str, ...],
    config: RunConfig,
    out: Path,
    command: str,
    say: Callable[[str], None],
    console: Console,
) -> int:
    from healthfm_simulations.tuning import chosen_settings
    from healthfm_simulations.tuning.search_units import SearchUnits
    from healthfm_simulations.tuning.settings_search import SettingsSearch, best_of

    units = SearchUnits.prepare(plan, config, overrides, out)
    for line in units.sentences():
        say(line)
    trials = SettingsSearch(plan, overrides, out, units.training, say).run()
    metric = plan.metric_of(config)
    console.print(chosen_settings.trials_table(trials, metric))
    path = chosen_settings.write_chosen(out, trials, config, metric, command)
    best = best_of(trials)
    if best is None or path is None:
        say("Every trial was given up: nothing is chosen.")
        return 0
    chosen = chosen_settings.chosen_overrides(best, config)
    if not chosen:
        say("The configuration as it is was not beaten.")
    say(f"Chosen on tuning people ({path}):\n{chosen_settings.chosen_command(overrides, chosen)}")
    return 0


def _keep_or_check(path: Path, plan: TunePlan, config: RunConfig) -> None:
    """Write what the search is begun with, or check that it goes on with the same.

    Raises:
        RunError: It was begun with other settings (HF-702). More trials are no other settings.
    """
    fixed = plan.model_dump(mode="json", exclude={"trials"})
    text = yaml.safe_dump({"plan": fixed, "config": yaml.safe_load(to_yaml(config))})
    if path.is_file() and path.read_text(encoding="utf-8") != text:
        raise RunError(
            702,
            where=str(path),
            seen="the search in it was begun with other settings",
            do="Give the same command, or another --out",
        )
    path.write_text(text, encoding="utf-8")


def _refuse_what_a_search_cannot_have(config: RunConfig) -> None:
    """Refuse what a trial does not do.

    Raises:
        ConfigError: HF-103.
    """
    if config.simulation.joins or config.simulation.leaves:
        raise ConfigError(
            103,
            where="simulation.joins, simulation.leaves",
            seen="sites that come or go within the rounds",
            wanted="a search trains with all sites from the first round on",
            do="Leave them out of the search",
        )


if __name__ == "__main__":
    raise SystemExit(main())
