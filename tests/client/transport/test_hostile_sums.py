"""What a coordinator with the study's signing key cannot get out of secure sums."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message

from healthfm_core.errors import HealthFMError, PrivacyError
from healthfm_core.federation import protocol
from healthfm_core.privacy import secure_aggregation as secure
from healthfm_server.transport.secure_session import SecureExchange
from tests import enrolled
from tests.server.transport.coordinators import Coordinator, enrolled_sites

ALL = ("a", "b", "c", "d", "e")
OTHERS = ("a", "b", "c", "d")


def reasons(coordinator: Coordinator) -> list[str]:
    return [event["reason"] for event in coordinator.store.events() if "reason" in event]


@pytest.fixture
def sites(tmp_path: Path) -> tuple[Path, list[enrolled.Enrolled]]:
    return enrolled_sites(tmp_path, ALL)


def test_no_second_sum_of_a_round_leaves_a_site_out(tmp_path: Path, sites) -> None:
    study, nodes = sites
    hostile = Coordinator(enrolled.Wire(nodes), study, tmp_path / "run")
    assert hostile.open(ALL) is not None
    assert hostile.open(OTHERS) is None
    assert "HF-614" in reasons(hostile)[-1]
    assert hostile.open(ALL) is not None, "the same sites may send the same again"


def test_no_new_process_of_the_sites_forgets_what_was_opened(tmp_path: Path, sites) -> None:
    """Flower's contexts are new, as after a restart of the sites or another submission."""
    study, nodes = sites
    assert Coordinator(enrolled.Wire(nodes), study, tmp_path / "run").open(ALL) is not None
    again = Coordinator(enrolled.Wire(nodes), study, tmp_path / "run")
    assert again.open(OTHERS) is None


def test_no_other_name_of_a_run_opens_the_same_numbers_without_a_site(
    tmp_path: Path, sites
) -> None:
    study, nodes = sites
    grid = enrolled.Wire(nodes)
    assert Coordinator(grid, study, tmp_path / "run").open(ALL) is not None
    other = Coordinator(grid, study, tmp_path / "another")
    assert other.open(OTHERS) is None


def test_no_other_round_of_the_same_model_and_seed_leaves_a_site_out(
    tmp_path: Path, sites, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, nodes = sites
    monkeypatch.setattr("healthfm_server.transport.orders.seed_for", lambda *_: 7)
    hostile = Coordinator(enrolled.Wire(nodes), study, tmp_path / "run")
    assert hostile.open(ALL, 1) is not None
    assert hostile.open(OTHERS, 2) is None
    assert hostile.open(OTHERS, 2, shift=0.5) is not None, "another model, as after a dropout"


def test_no_scores_of_one_model_are_summed_without_a_site(tmp_path: Path, sites) -> None:
    study, nodes = sites
    hostile = Coordinator(enrolled.Wire(nodes), study, tmp_path / "run", rounds=3)
    assert hostile.open(ALL, 3, train=False) is not None
    assert hostile.open(OTHERS, 4, train=False) is None


def test_a_site_may_want_the_same_sites_in_every_round(tmp_path: Path) -> None:
    study, nodes = enrolled_sites(tmp_path, ALL, sums={"same_sites_in_every_round": True})
    hostile = Coordinator(enrolled.Wire(nodes), study, tmp_path / "run")
    assert hostile.open(ALL, 1) is not None
    assert hostile.open(OTHERS, 2, shift=0.5) is None
    assert hostile.open(ALL, 3, shift=0.5) is not None


class Without(enrolled.Wire):
    """A wire on which a site's keys are lost while `away` names it."""

    away = 0
    kind = protocol.KEYS

    def pull_messages(self, message_ids: Any) -> Any:
        """Deliver what is not lost."""
        for reply in super().pull_messages(message_ids):
            gone = (self.away, self.kind)
            if (reply.metadata.src_node_id, reply.metadata.message_type) != gone:
                yield reply


def test_no_second_sum_of_statistics_leaves_a_site_out(tmp_path: Path, sites) -> None:
    study, nodes = sites
    grid = Without(nodes)
    Coordinator(grid, study, tmp_path / "run")
    grid.away = 5
    with pytest.raises(PrivacyError, match=r"HF-614.*without e"):
        Coordinator(grid, study, tmp_path / "another")
    grid.away = 0
    Coordinator(grid, study, tmp_path / "third")


def test_no_table_of_statistics_is_opened_without_a_site_of_its_marks(
    tmp_path: Path, sites
) -> None:
    study, nodes = sites

    class LeavesAfterMarks(Without):
        def push_messages(self, messages: Any) -> Any:
            messages = list(messages)
            orders = [m.content.config_records.get(protocol.ORDER, {}) for m in messages]
            if any(order.get("step") == "marks" for order in orders):
                self.away = 5
            return super().push_messages(messages)

    with pytest.raises(PrivacyError, match=r"HF-614.*without e"):
        Coordinator(LeavesAfterMarks(nodes), study, tmp_path / "run")


def test_sites_may_permit_other_sites_in_a_new_run(tmp_path: Path) -> None:
    study, nodes = enrolled_sites(tmp_path, ALL, sums={"other_sites_in_a_new_run": True})
    grid = Without(nodes)
    assert Coordinator(grid, study, tmp_path / "run").open(ALL) is not None
    grid.away = 5
    assert Coordinator(grid, study, tmp_path / "another").open(OTHERS) is not None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("min_sites", 2),
        ("threshold", 0.51),
        ("degree", 2),
        ("colluding_fraction", 0.0),
        ("dropout_fraction", 0.0),
        ("purpose", "statistics"),
        ("purpose", "another"),
        ("study", "0" * 64),
        ("number", 9),
    ],
)
def test_no_term_of_a_sum_is_another_than_the_contracts(
    tmp_path: Path, sites, monkeypatch: pytest.MonkeyPatch, field: str, value: Any
) -> None:
    study, nodes = sites
    hostile = Coordinator(enrolled.Wire(nodes), study, tmp_path / "run")
    honest = SecureExchange.terms

    def lying(self: SecureExchange, *args: Any) -> secure.Terms:
        terms = honest(self, *args)
        return secure.Terms(**{**vars(terms), field: value})

    monkeypatch.setattr(SecureExchange, "terms", lying)
    with pytest.raises(PrivacyError, match="HF-611"):
        hostile.open(ALL)
    said = reasons(hostile)[-5:]
    if field != "study":
        assert all("HF-814" in reason for reason in said)
        assert all(f"with {field}" in reason or field == "purpose" for reason in said)
    else:
        assert all("HF-404" in reason for reason in said)


def test_no_order_of_another_round_is_answered_in_a_session(
    tmp_path: Path, sites, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, nodes = sites
    hostile = Coordinator(enrolled.Wire(nodes), study, tmp_path / "run")
    honest = SecureExchange.terms
    monkeypatch.setattr(
        SecureExchange, "terms", lambda self, study, purpose, _: honest(self, study, purpose, 2)
    )
    with pytest.raises(PrivacyError, match="HF-611"):
        hostile.open(ALL, 1)
    said = reasons(hostile)[-5:]
    assert all("HF-612" in reason and "an order about round 1" in reason for reason in said)


KINDS = (protocol.KEYS, protocol.SHARES, protocol.UNMASK, protocol.STATISTICS, protocol.TRAIN)


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        *((kind, "text") for kind in KINDS),
        (protocol.KEYS, "unsigned"),
        (protocol.UNMASK, "another site's"),
        (protocol.SHARES, "another step's"),
    ],
)
def test_who_has_the_wire_and_not_the_key_moves_no_sum(
    tmp_path: Path, kind: str, change: str, sites
) -> None:
    study, nodes = sites
    seen: dict[tuple[int, str], ConfigRecord] = {}

    class Man(enrolled.Wire):
        def change(self, message: Message) -> None:
            record = message.content.config_records.get(protocol.SECURE_MESSAGE)
            meta = message.metadata
            if record is None:
                return
            seen[meta.dst_node_id, meta.message_type] = ConfigRecord(dict(record))
            if (meta.dst_node_id, meta.message_type) != (2, kind):
                return
            match change:
                case "text":
                    record["json"] = f"{record['json']} "
                case "unsigned":
                    del record["signature"]
                case "another site's":
                    record["signature"] = seen[1, kind]["signature"]
                case "another step's":
                    earlier = [r for (n, k), r in seen.items() if n == 2 and k != kind]
                    record["signature"] = earlier[0]["signature"] if earlier else "AAAA"

    grid = Man(nodes)
    if kind in (protocol.STATISTICS, protocol.KEYS, protocol.SHARES):
        Coordinator(grid, study, tmp_path / "run")
    else:
        Coordinator(grid, study, tmp_path / "run").open(ALL)
    answers = [
        reply.error.reason
        for reply in grid.back
        if reply.metadata.src_node_id == 2
        and reply.metadata.message_type == kind
        and reply.has_error()
    ]
    assert answers
    assert all("HF-814" in reason for reason in answers)


class InTheClear(enrolled.Wire):
    """The statistics order loses what asks for sums, on the wire or at its source."""

    def change(self, message: Message) -> None:
        """Take the two keys out."""
        if message.metadata.message_type == protocol.STATISTICS:
            order = message.content.config_records[protocol.ORDER]
            for key in ("secure", "hide"):
                order.pop(key, None)


def test_no_statistics_leave_in_the_clear_where_the_contract_says_sums(
    tmp_path: Path, sites, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, nodes = sites
    grid = InTheClear(nodes)
    with pytest.raises(HealthFMError, match=r"HF-403.*HF-814"):
        Coordinator(grid, study, tmp_path / "wire")
    signed = enrolled.Wire(nodes)
    monkeypatch.setattr(
        "healthfm_server.study_setup.setup._question",
        lambda config: {
            "version": protocol.VERSION,
            "tokens": config.tokens.model_dump_json(),
            "task": "",
        },
    )
    Coordinator(signed, study, tmp_path / "signed")
    for reply in grid.back + signed.back:
        if reply.has_error() or reply.metadata.message_type != protocol.STATISTICS:
            continue
        site = reply.content.config_records.get(protocol.SITE)
        assert site is None or protocol.ARRAYS not in reply.content
        assert site is None or site["modalities"] == "[]"


def test_every_pair_of_sums_of_a_run_with_restarts_and_dropouts_differs_in_no_one_site(
    tmp_path: Path, sites
) -> None:
    """All that a coordinator may try on one round, and what the differences of the sums are."""
    study, nodes = sites
    rng = np.random.default_rng(5)
    opened: list[tuple[frozenset[str], dict[str, Any]]] = []
    for attempt in range(8):
        grid = enrolled.Wire(nodes)
        hostile = Coordinator(grid, study, tmp_path / f"run{attempt % 3}")
        count = int(rng.integers(3, 6))
        names = frozenset(rng.choice(ALL, size=count, replace=False))
        found = hostile.open(names)
        if found is not None:
            opened.append((names, found))
        if attempt % 2:
            opened.append((frozenset(ALL), hostile.open(ALL) or {}))
    sums = [(names, found) for names, found in opened if found]
    assert sums
    for names, found in sums:
        for other_names, other in sums:
            assert names == other_names or not names & other_names
            assert all((found[name] == other[name]).all() for name in found)


def test_no_sum_is_of_fewer_people_than_a_site_wants(tmp_path: Path) -> None:
    """The five sites have 65 people; the coordinator's word for it is signed."""
    study, nodes = enrolled_sites(tmp_path, ALL, sums={"min_subjects": 66})
    with pytest.raises(PrivacyError, match="HF-611"):
        Coordinator(enrolled.Wire(nodes), study, tmp_path / "run")
    study, nodes = enrolled_sites(tmp_path / "fewer", ALL, sums={"min_subjects": 65})
    Coordinator(enrolled.Wire(nodes), study, tmp_path / "fewer" / "run")
