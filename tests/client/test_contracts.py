"""Enrolled sites and a server that signs: the real apps, the real keys, and what goes wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from flwr.app import Array, ConfigRecord, Message

from healthfm_client.site.site_home import SiteHome
from healthfm_core.errors import ProtocolError
from healthfm_core.federation import protocol
from healthfm_core.trust.authority import Authority
from healthfm_core.trust.site_registry import Registry
from healthfm_server.run_folder.run_store import RunStore
from healthfm_simulations.engine import run_federation
from tests import enrolled
from tests import three_numbers as small


def reasons(store: RunStore) -> dict[str, str]:
    """Why each site, or node, was set aside last."""
    return {e["site"]: e["reason"] for e in store.events() if e["event"] == "set aside"}


def test_signed_contracts_change_nothing_of_what_is_learned(tmp_path: Path) -> None:
    study, sites = enrolled.three(tmp_path)
    deployed = enrolled.run(enrolled.Wire(sites), study, tmp_path / "run").checkpoints.load()
    specs = small.three_sites(tmp_path)
    simulated = run_federation(
        small.config(), specs, tmp_path / "simulated", apps=small.apps()
    ).parameters
    assert deployed is not None
    for name, value in simulated.items():
        assert value.tobytes() == deployed.parameters[name].tobytes()


class Altering(enrolled.Wire):
    """Changes what node 2 gets."""

    kind = protocol.PREPARE

    def alter(self, order: ConfigRecord) -> None:
        """Change the order record."""

    def change(self, message: Message) -> None:
        """Change messages of one kind to node 2."""
        metadata = message.metadata
        if metadata.dst_node_id == 2 and metadata.message_type == self.kind:
            self.alter(message.content.config_records[protocol.ORDER])


class Unsigned(Altering):
    def alter(self, order: ConfigRecord) -> None:
        for key in ("contract", "signature", "signer"):
            del order[key]


class OtherStudy(Altering):
    """The contract is good; what is to be trained is not what it says."""

    def alter(self, order: ConfigRecord) -> None:
        order["study"] = str(order["study"]).replace('"seed":3', '"seed":4')


class OtherContract(Altering):
    def alter(self, order: ConfigRecord) -> None:
        order["contract"] = str(order["contract"]).replace('"rounds":3', '"rounds":9')


class OtherStatistics(Altering):
    kind = protocol.STATISTICS

    def alter(self, order: ConfigRecord) -> None:
        order["tokens"] = str(order["tokens"]).replace('"k_min":', '"k_min":1')


class Replayed(Altering):
    """Node 2 gets the contract that was for the statistics once more."""

    first: dict[str, str]

    def change(self, message: Message) -> None:
        order = message.content.config_records[protocol.ORDER]
        if message.metadata.message_type == protocol.STATISTICS:
            self.first = {k: str(order[k]) for k in ("contract", "signature", "signer")}
        super().change(message)

    def alter(self, order: ConfigRecord) -> None:
        order.update(self.first)


@pytest.mark.parametrize(
    ("grid", "code", "said"),
    [
        (Unsigned, 813, "without a signed contract"),
        (OtherContract, 814, "signature that does not hold"),
        (OtherStudy, 814, "not the contract's"),
        (OtherStatistics, 814, "other statistics"),
        (Replayed, 818, "presented here before"),
    ],
)
def test_a_site_that_got_something_else_refuses_and_the_others_go_on(
    tmp_path: Path, grid: type[Altering], code: int, said: str
) -> None:
    study, sites = enrolled.three(tmp_path)
    store = enrolled.run(grid(sites), study, tmp_path / "run")
    assert f"HF-{code}" in reasons(store)["b"]
    assert said in reasons(store)["b"]
    log = list(SiteHome(sites[1].home).log().entries())
    assert code in {entry.get("refused") for entry in log}
    if grid is not OtherStatistics:
        assert {row["answered"][0] for row in store.history()} == {"a"}
        assert all("b" not in row["asked"] for row in store.history())


def test_a_coordinator_of_another_study_is_refused_by_every_site(tmp_path: Path) -> None:
    _, sites = enrolled.three(tmp_path)
    enrolled.study(tmp_path / "other")
    with pytest.raises(ProtocolError, match=r"HF-403.*HF-815"):
        enrolled.run(enrolled.Wire(sites), tmp_path / "other", tmp_path / "run")


def test_a_coordinator_without_a_key_is_refused_by_every_site(tmp_path: Path) -> None:
    _, sites = enrolled.three(tmp_path)
    with pytest.raises(ProtocolError, match=r"HF-403.*HF-813"):
        enrolled.run(enrolled.Wire(sites), None, tmp_path / "run")


def test_an_order_for_more_rounds_than_were_signed_is_refused(tmp_path: Path) -> None:
    class Longer(Altering):
        kind = protocol.TRAIN

        def alter(self, order: ConfigRecord) -> None:
            order["json"] = str(order["json"]).replace('"rounds": 3', '"rounds": 4')

    study, sites = enrolled.three(tmp_path)
    store = enrolled.run(Longer(sites), study, tmp_path / "run")
    assert "HF-814" in reasons(store)["b"]


def test_a_contract_that_runs_out_is_renewed_between_rounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A site refuses the second round under its old contract, and gets a new one for the third."""
    from healthfm_core.trust import contract

    study, sites = enrolled.three(tmp_path)
    real = contract.now_utc

    class Late(Altering):
        kind = protocol.TRAIN
        orders = 0

        def alter(self, order: ConfigRecord) -> None:
            Late.orders += 1
            offset = 40 if Late.orders == 2 else 0
            later = contract.timedelta(days=offset)
            monkeypatch.setattr(contract, "now_utc", lambda: real() + later)

        def _deliver(self, message: Message) -> Message:
            try:
                return super()._deliver(message)
            finally:
                monkeypatch.setattr(contract, "now_utc", real)

    store = enrolled.run(Late(sites), study, tmp_path / "run")
    assert "HF-816" in store.history()[1]["set_aside"]["b"]
    assert store.history()[2]["answered"] == ["a", "b", "c"]


def test_a_site_that_answers_for_another_node_is_refused(tmp_path: Path) -> None:
    """Node 2 was given site c's folder: it says it is c."""
    study, (a, b, c) = enrolled.three(tmp_path)
    Registry(study / "sites.json").revoke("a")
    store_path = tmp_path / "run"
    with pytest.raises(ProtocolError, match=r"HF-403.*HF-8(11|20)"):
        enrolled.run(enrolled.Wire([a, c, b]), study, store_path)
    said = reasons(RunStore(store_path, keep=1))
    assert "HF-811" in said["a"]
    assert "HF-820" in said["b"]
    assert "HF-820" in said["c"]


def test_a_reply_that_names_another_node_than_it_comes_from_is_refused(tmp_path: Path) -> None:
    class Lying(enrolled.Wire):
        def _deliver(self, message: Message) -> Message:
            reply = super()._deliver(message)
            if message.metadata.dst_node_id == 2 and protocol.SITE in reply.content:
                record = reply.content.config_records[protocol.SITE]
                if message.metadata.message_type == self.kind:
                    record.update({"site": "c", "node": "3"})
            return reply

    study, sites = enrolled.three(tmp_path)
    for number, kind in enumerate((protocol.STATISTICS, protocol.PREPARE, protocol.TRAIN)):
        grid = Lying(sites)
        grid.kind = kind
        store = enrolled.run(grid, study, tmp_path / f"run{number}")
        assert any("HF-820" in reason for reason in reasons(store).values()), kind
        folded = store.history()[0]["groups"]["backbone"]["sites"]
        assert folded == (3 if kind == protocol.STATISTICS else 2)


def test_a_site_that_is_not_enrolled_says_so(tmp_path: Path) -> None:
    study, (a, b, c) = enrolled.three(tmp_path)
    (b.home / "study" / "kit.zip").unlink()
    store = enrolled.run(enrolled.Wire([a, b, c]), study, tmp_path / "run")
    assert "HF-830" in reasons(store)["b"]


def test_a_damaged_signing_key_stops_the_coordinator_before_it_asks(tmp_path: Path) -> None:
    study, sites = enrolled.three(tmp_path)
    (study / "authority" / "signer.key").write_text("damaged")
    grid = enrolled.Wire(sites)
    with pytest.raises(Exception, match="HF-802"):
        enrolled.run(grid, study, tmp_path / "run")
    assert grid.sent == []


def test_authority_and_signer_are_of_one_study(tmp_path: Path) -> None:
    study, _ = enrolled.three(tmp_path)
    assert Authority(study / "authority").study == "heart"


class OtherSeed(Altering):
    kind = protocol.TRAIN

    def alter(self, order: ConfigRecord) -> None:
        order["json"] = str(order["json"]).replace('"seed": ', '"seed": 1')


class NoSignature(Altering):
    kind = protocol.TRAIN

    def alter(self, order: ConfigRecord) -> None:
        del order["signature"]


class OtherParameters(Altering):
    """The order is the one that was signed; one byte of the model with it is not."""

    kind = protocol.TRAIN

    def change(self, message: Message) -> None:
        metadata = message.metadata
        if (metadata.dst_node_id, metadata.message_type) == (2, self.kind):
            arrays = message.content.array_records[protocol.ARRAYS]
            name, array = next(iter(arrays.items()))
            changed = array.data[:-1] + bytes([array.data[-1] ^ 1])
            arrays[name] = Array(array.dtype, array.shape, array.stype, changed)


@pytest.mark.parametrize("grid", [OtherSeed, NoSignature, OtherParameters])
def test_who_has_the_wire_and_not_the_signing_key_lets_no_site_train(
    tmp_path: Path, grid: type[Altering]
) -> None:
    study, sites = enrolled.three(tmp_path)
    store = enrolled.run(grid(sites), study, tmp_path / "run")
    assert "HF-814" in reasons(store)["b"]
    assert "signer did not sign" in reasons(store)["b"]
    assert all(row["answered"] == ["a", "c"] for row in store.history())
