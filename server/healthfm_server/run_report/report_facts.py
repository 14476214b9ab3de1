"""What a run was: names, time, what it cost, and the fingerprints by which others check it."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version

from healthfm_core.evaluation.report.wording import duration
from healthfm_core.federation.privacy_statement import privacy_statement
from healthfm_core.federation.protocol import Study
from healthfm_core.trust import fingerprint
from healthfm_server.deploy.run_orders import RunOrder
from healthfm_server.deploy.study_folder import StudyFolder
from healthfm_server.page.run_history import RunHistory
from healthfm_server.run_folder.ended_model import EndedModel


def report_facts(
    folder: StudyFolder, order: RunOrder, history: RunHistory, study: Study | None
) -> Iterator[tuple[str, str]]:
    """Yield (what, value), for a person.

    Args:
        folder: The study's.
        order: The run.
        history: Its rounds.
        study: What its sites agreed on; None before they have.
    """
    status, rounds = order.status(), order.config().federation.rounds
    yield "study", folder.settings.study
    yield "run", order.name
    yield "state", f"{status.state}, {order.rounds_done()} of {rounds} rounds"
    yield "ordered", str(order.about().get("given", ""))
    yield from _of_the_study(study)
    yield from _cost(history)
    if study is not None:
        yield "privacy", privacy_statement(study)
    if history.privacy:
        spent = history.privacy
        said = f"ε {spent['epsilon']:.2f} at δ {spent['delta']:g}, unit: one {spent['unit']}"
        yield "spent by the sums so far", said
    yield from _fingerprints(folder, order, study)


def _of_the_study(study: Study | None) -> Iterator[tuple[str, str]]:
    if study is not None:
        yield "id in contracts and at the sites", study.run_id
        yield "modalities", ", ".join(study.modalities)
        yield "model", study.config.model.name


def _cost(history: RunHistory) -> Iterator[tuple[str, str]]:
    if history.rounds:
        mean = sum(history.seconds) / len(history.seconds)
        yield "rounds took", f"{duration(sum(history.seconds))}, {duration(mean)} each"
    if history.bytes:
        down, up = history.bytes.get("down", 0), history.bytes.get("up", 0)
        yield "bytes of models and updates", f"{down:,} to the sites, {up:,} from them"


def _fingerprints(
    folder: StudyFolder, order: RunOrder, study: Study | None
) -> Iterator[tuple[str, str]]:
    root = folder.root_fingerprint()
    yield "the study's root in words", fingerprint.in_words(root)
    if study is not None:
        yield "SHA-256 of what the sites agreed on", study.hash
        yield "SHA-256 of the vocabulary", study.vocabulary.hash
    model = EndedModel.of(order.folder)
    if model is not None:
        yield f"SHA-256 of the model after round {model.round}", model.sha256
    yield "release", f"healthfm {version('healthfm')}"
