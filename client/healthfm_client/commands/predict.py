"""``predict MODEL STORE --task TASK --out FILE``: what a model says of a site's own people.

The file is about people. It is written for the one who asked, and never into a folder that is meant
to be handed on.
"""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from pathlib import Path

from healthfm_client.site.private_file import check_stays
from healthfm_core.command_line import Command
from healthfm_core.errors import IngestError


def arguments(parser: ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("model", type=Path, metavar="MODEL_FOLDER", help="an exported model")
    parser.add_argument("store", type=Path, metavar="STORE", help="the site's store")
    parser.add_argument(
        "--task",
        required=True,
        metavar="TASK",
        help="a code whose risk is asked for, or the label that the model was trained on",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="new Parquet file")
    parser.add_argument(
        "--horizon", type=float, default=365.0, metavar="DAYS", help="risk within so many [365]"
    )
    parser.add_argument(
        "--at",
        type=Path,
        metavar="FILE",
        help="whom and when to ask about: Parquet with subject_id and prediction_time, or a label "
        "table of the store [everybody, at the last visit]",
    )
    parser.add_argument(
        "--modalities",
        type=_names,
        metavar="NAMES",
        help="read these alone, by commas [all that the store has and the model knows]",
    )
    parser.add_argument(
        "--known-codes",
        type=_share,
        default=0.5,
        metavar="SHARE",
        help="least share of a person's events whose codes the model knows [0.5]",
    )
    parser.add_argument(
        "--ages", type=_ages, metavar="LOW-HIGH", help="years of age that are asked about [any]"
    )
    parser.add_argument(
        "--max-gap",
        type=float,
        metavar="DAYS",
        help="most days from the last of a record to the time asked about [what the model allows]",
    )
    parser.add_argument(
        "--threshold",
        type=_share,
        metavar="PROBABILITY",
        help="predicted_boolean_value is true from it on [left empty]",
    )

    parser.add_argument(
        "--calibration", type=Path, metavar="FILE", help="a calibration that --calibrate wrote"
    )
    parser.add_argument(
        "--calibrate",
        type=Path,
        metavar="LABELS",
        help="predict nobody, but write a calibration to this site's own outcomes: a file like "
        "that of --at with boolean_value, or a label table of the store",
    )
    parser.add_argument(
        "--method",
        choices=("platt", "isotonic"),
        default="platt",
        help="of --calibrate: a line on the log odds, or the best rising curve [platt]",
    )


def run(given: Namespace) -> int:
    """Predict, write the file, and say what is in it, in counts; or calibrate."""
    from healthfm_client import site_predictions  # here: it loads PyTorch

    check_stays(given.out)
    if given.calibrate is None:
        site_predictions.write(given)
    else:
        _refuse_beside_calibrate(given)
        site_predictions.calibrate(given)
    return 0


def _refuse_beside_calibrate(given: Namespace) -> None:
    for name in ("at", "threshold", "calibration"):
        if getattr(given, name) is not None:
            raise IngestError(
                354,
                where="predict",
                seen=f"--calibrate and --{name}",
                wanted="a calibration is made first, and used with --calibration by the next call",
            )


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _share(text: str) -> float:
    share = float(text)
    if not 0 <= share <= 1:
        raise ArgumentTypeError(f"{text} is not from 0 to 1")
    return share


def _ages(text: str) -> tuple[float, float]:
    low, _, high = text.partition("-")
    try:
        ages = float(low), float(high)
    except ValueError:
        ages = (1.0, 0.0)
    if not 0 <= ages[0] <= ages[1]:
        raise ArgumentTypeError(f"{text} is no range of ages, as 18-90 is")
    return ages


COMMAND = Command("ask a model about this site's own people; the file stays here", run, arguments)
