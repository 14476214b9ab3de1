"""``track``: a run's rounds in TensorBoard, MLflow or Weights & Biases."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from healthfm_core.command_line import Command
from healthfm_core.stdout import say
from healthfm_server.commands import run_of, takes_study
from healthfm_server.deploy.study_folder import SETTINGS, StudyFolder
from healthfm_server.tracking.following import Following, track
from healthfm_server.tracking.tracker import known_trackers, usable_tracker


def arguments(parser: ArgumentParser) -> None:
    """Name the run, the tracker, where it is, and how much it gets."""
    trackers = known_trackers()
    takes_study(parser)
    parser.add_argument("run", help="the run's name, or a folder: a run's or a simulation's")
    parser.add_argument("--to", required=True, choices=trackers, help="the tracker")
    meant = "; ".join(f"{name}: {tracker.at}" for name, tracker in trackers.items())
    parser.add_argument("--at", metavar="PLACE", help=meant)
    parser.add_argument(
        "--experiment", metavar="NAME", help="what runs stand under (default: the study's name)"
    )
    parser.add_argument("--follow", action="store_true", help="until the run has ended")
    parser.add_argument(
        "--by-site", action="store_true", help="sites' own figures too, under the sites' names"
    )


def run(given: Namespace) -> int:
    """Write a run's history to a tracker."""
    tracker = usable_tracker(given.to)
    folder = _folder_of(given)
    experiment = given.experiment or _study_name(folder)
    following = Following(folder, tracker, experiment, given.at, by_site=given.by_site)
    for line in track(following, folder, follow=given.follow):
        say(line)
    return 0


def _folder_of(given: Namespace) -> Path:
    """Return a folder that is named, else that of the study's run of that name."""
    named = Path(given.run)
    if named.is_dir() or not (given.study / SETTINGS).is_file():
        return named
    return run_of(given).folder


def _study_name(folder: Path) -> str:
    """Return the name of the study that a run is of; a simulation's is that of its folder."""
    study = folder.resolve().parent.parent
    if (study / SETTINGS).is_file():
        return StudyFolder.open(study).settings.study
    return folder.resolve().name


COMMAND = Command("show a run in TensorBoard, MLflow or Weights & Biases", run, arguments)
