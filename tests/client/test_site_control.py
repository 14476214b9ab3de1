"""What an administrator decides is obeyed from the next message on; the coordinator sees it."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from flwr.app import Message

from healthfm_client.__main__ import main
from healthfm_client.doctor import site_files
from healthfm_client.privacy_accounting.site_privacy import SitePrivacy
from healthfm_client.site.site_folder import JoinSettings, StoreChoice
from healthfm_client.site.site_home import SiteHome
from healthfm_client.site.site_policy import TOLD_BY_A_PERSON, SitePolicy
from healthfm_client.site.working_hours import WorkingHours, is_working_time
from healthfm_core.data.store.beside_store import bytes_beside, working_folder
from healthfm_core.errors import ConfigError, PolicyError, ProtocolError
from healthfm_core.federation import protocol
from healthfm_core.federation.contracting import METRICS_WANTED
from healthfm_core.trust import fingerprint
from healthfm_core.trust.authority import Authority
from healthfm_core.trust.kit import make_kit
from healthfm_core.trust.request import read_request
from healthfm_core.trust.site_keys import SiteKeys
from tests import enrolled
from tests.client.test_contracts import reasons
from tests.trust.test_contract import terms


def command(home: Path, *words: str) -> int:
    return main([words[0], "--site", str(home), *words[1:]])


def test_a_run_waits_until_a_person_approves_it(tmp_path: Path, capsys) -> None:
    study, sites = enrolled.three(tmp_path, require_approval=True)
    grid = enrolled.Wire(sites)
    with pytest.raises(ProtocolError, match=r"HF-403.*HF-503"):
        enrolled.run(grid, study, tmp_path / "run")
    assert all(reply.has_error() for reply in grid.back), "nothing left before the approval"
    for site in sites:
        assert command(site.home, "requests") == 0
        shown = capsys.readouterr().out
        assert "3 times, it sends a model" in shown
        assert "Records, names and dates stay here" in shown
        assert "No noise is added" in shown
        run = shown.split()[0]
        assert command(site.home, "approve", run) == 0
        capsys.readouterr()
    store = enrolled.run(enrolled.Wire(sites), study, tmp_path / "run")
    assert [row["answered"] for row in store.history()] == [["a", "b", "c"]] * 3
    capsys.readouterr()
    assert command(sites[0].home, "requests", "--json") == 0
    (asked,) = json.loads(capsys.readouterr().out)
    assert (asked["answer"], asked["study"]) == ("approved", "heart")


def test_who_approves_late_takes_part_all_the_same(tmp_path: Path) -> None:
    """Two sites would be a quorum; the third is waited for, and asked again with a new contract."""
    study, sites = enrolled.three(tmp_path)
    SiteHome(sites[1].home).policy.write_text("require_approval: true")

    class Late(enrolled.Wire):
        asked = 0

        def change(self, message: Message) -> None:
            if message.metadata.dst_node_id == 2:
                self.asked += 1
                if self.asked == 3:
                    (one,) = SiteHome(sites[1].home).approvals()
                    assert command(sites[1].home, "approve", one.run) == 0

    grid = Late(sites)
    store = enrolled.run(grid, study, tmp_path / "run")
    assert [row["answered"] for row in store.history()] == [["a", "b", "c"]] * 3
    waits = [event for event in store.events() if event["event"] == "waits for approval"]
    assert [(event["phase"], event["nodes"]) for event in waits] == [("statistics", 1)]
    refused = [e.get("refused") for e in SiteHome(sites[1].home).log().entries()]
    assert refused[:3] == [503, None, None]


def test_the_words_say_what_the_sites_own_rules_make_of_a_run(tmp_path: Path, capsys) -> None:
    private = {"mode": "dp", "epsilon": 3.0, "ledger": "ledger.jsonl"}
    study, sites = enrolled.three(tmp_path, require_approval=True, k_min=35, privacy=private)
    with pytest.raises(ProtocolError, match="HF-503"):
        enrolled.run(enrolled.Wire(sites), study, tmp_path / "run")
    assert command(sites[0].home, "requests") == 0
    said = capsys.readouterr().out
    assert "counts under 35 stay here" in said
    assert "Noise is added here, as site.yaml wants. It promises ε 3 (δ 1e-05)" in said
    assert "No noise" not in said


def test_a_denied_run_is_refused_and_another_run_asks_anew(tmp_path: Path, capsys) -> None:
    study, sites = enrolled.three(tmp_path)
    home = SiteHome(sites[1].home)
    home.policy.write_text("require_approval: true")
    enrolled.run(enrolled.Wire(sites), study, tmp_path / "one")
    (asked,) = home.approvals()
    assert command(home.path, "deny", asked.run) == 0
    store = enrolled.run(enrolled.Wire(sites), study, tmp_path / "one")
    assert "HF-506" in reasons(store)["b"]
    enrolled.run(enrolled.Wire(sites), study, tmp_path / "two")
    assert sorted(one.answer for one in home.approvals()) == ["denied", "waiting"]
    capsys.readouterr()
    assert command(home.path, "approve", "../../x") == 6
    assert "HF-503" in capsys.readouterr().err


def test_a_site_paused_in_the_middle_of_a_run_misses_rounds_and_comes_back(tmp_path: Path) -> None:
    study, sites = enrolled.three(tmp_path)

    class Pausing(enrolled.Wire):
        def change(self, message: Message) -> None:
            if message.metadata.dst_node_id == 2 and message.metadata.message_type == "train":
                words = {"2": "pause", "3": "resume"}
                if message.metadata.group_id in words:
                    assert command(sites[1].home, words[message.metadata.group_id]) == 0

    store = enrolled.run(Pausing(sites), study, tmp_path / "run")
    assert ["b" in row["answered"] for row in store.history()] == [True, False, True]
    assert "HF-505" in store.history()[1]["set_aside"]["b"]


def test_a_site_that_left_refuses_until_it_comes_back(tmp_path: Path, capsys) -> None:
    study, sites = enrolled.three(tmp_path)
    assert command(sites[1].home, "leave") == 0
    store = enrolled.run(enrolled.Wire(sites), study, tmp_path / "one")
    assert "HF-508" in reasons(store)["b"]
    assert command(sites[1].home, "resume") == 0
    store = enrolled.run(enrolled.Wire(sites), study, tmp_path / "two")
    assert store.history()[0]["answered"] == ["a", "b", "c"]


def test_a_site_that_leaves_keeps_its_store_and_no_tokens_of_it(tmp_path: Path, capsys) -> None:
    _, sites = enrolled.three(tmp_path)
    home, store = SiteHome(sites[0].home), tmp_path / "stores" / "mine"
    store.mkdir(parents=True)
    home.write_settings(JoinSettings(stores=(StoreChoice(path=store),)))
    made = working_folder(store) / "made"
    made.mkdir()
    (made / "tokens.npy").write_bytes(bytes(2_000_000))
    assert bytes_beside(store) == 2_000_000
    assert command(home.path, "leave") == 0
    assert "2.0 MB of tokens" in capsys.readouterr().out
    assert not made.exists()
    assert store.is_dir()


PROMISE: dict[str, Any] = {"epsilon": 3.0, "delta": 1e-5, "ledger": "ledger.jsonl"}


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        ({"privacy_floor": ["differential_privacy"], "privacy": PROMISE}, "HF-501.*without noise"),
        ({"privacy_floor": ["secure_aggregation"]}, "HF-501.*privacy_floor.*each site's part"),
        ({"studies": ["lungs"]}, "HF-501.*studies"),
        ({"signer": "0" * 64}, "HF-501.*signer"),
        ({"min_cohort": 10**9}, "HF-501.*min_cohort"),
        ({"min_cohrt": 1}, "HF-101.*min_cohrt"),
        ({"timezone": "Mars"}, "HF-102.*timezone"),
    ],
)
def test_what_the_policy_refuses_the_coordinator_sees(
    tmp_path: Path, policy: dict[str, object], said: str
) -> None:
    study, sites = enrolled.three(tmp_path, **policy)
    with pytest.raises(ProtocolError, match=f"HF-403.*{said}"):
        enrolled.run(enrolled.Wire(sites), study, tmp_path / "run")


def test_outside_its_hours_a_site_refuses(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    start, end = (now + timedelta(hours=h) for h in (2, 3))
    hours = [{"start": f"{start:%H:%M}", "end": f"{end:%H:%M}"}]
    study, sites = enrolled.three(tmp_path, hours=hours)
    with pytest.raises(ProtocolError, match=r"HF-403.*HF-504"):
        enrolled.run(enrolled.Wire(sites), study, tmp_path / "run")


WEEK = {"days": ["mon", "tue", "wed", "thu", "fri"], "start": "20:00", "end": "06:00"}


@pytest.mark.parametrize(
    ("when", "opens"),
    [
        ("2026-11-23T18:59", False),  # Monday, 19:59 in Vienna
        ("2026-11-23T19:00", True),
        ("2026-11-24T04:59", True),
        ("2026-11-24T05:00", False),
        ("2026-11-28T04:00", True),  # Saturday, what Friday began
        ("2026-11-28T20:00", False),
        ("2026-11-23T03:00", False),  # Monday, what Sunday did not begin
        ("2026-07-20T18:00", True),  # in summer an hour earlier by UTC
    ],
)
def test_hours_go_over_midnight_in_the_sites_own_zone(when: str, opens: bool) -> None:
    stretch = WorkingHours.model_validate(WEEK)
    now = datetime.fromisoformat(when).replace(tzinfo=UTC)
    assert is_working_time((stretch,), "Europe/Vienna", now) is opens
    assert is_working_time((), "Europe/Vienna", now)


def test_unquoted_times_are_what_a_person_means() -> None:
    text = "hours: [{start: 20:00, end: 06:00}, {start: 00:00, end: 00:00}]"
    evening, always = SitePolicy.model_validate(yaml.safe_load(text)).hours
    assert (evening.start.hour, evening.end.hour) == (20, 6)
    assert always.hold(datetime(2026, 1, 1, 12, tzinfo=UTC))


@pytest.mark.parametrize("value", ["25:00", "noon", 1440, -1, True and 2.5])
def test_what_is_no_time_of_day_is_refused(tmp_path: Path, value: object) -> None:
    path = tmp_path / "site.yaml"
    path.write_text(yaml.safe_dump({"hours": [{"start": value, "end": "06:00"}]}))
    with pytest.raises(ConfigError, match=r"HF-102.*start"):
        SitePolicy.read(path)


LENT = """
import os
import numpy
from healthfm_client.site.computer_limits import ComputerLimits, apply

apply(ComputerLimits(threads=1, memory_gb=0.5, gpu=False))
import torch
assert torch.get_num_threads() == 1
assert not torch.cuda.is_available() and os.environ["CUDA_VISIBLE_DEVICES"] == ""
try:
    numpy.empty(2**27)
except MemoryError:
    apply(ComputerLimits(memory_gb=8))
    numpy.empty(2**27)
    print("as lent")
"""


def test_more_memory_than_is_lent_is_refused_to_the_process() -> None:
    done = subprocess.run([sys.executable, "-c", LENT], capture_output=True, text=True, check=True)
    assert done.stdout == "as lent\n"


def test_a_run_that_keeps_to_the_floor_is_taken() -> None:
    private = {"mode": "dp", "epsilon": 3.0}
    secure = {"federation": {"aggregation": {"secure": {"enabled": True, "min_sites": 3}}}}
    floor = ("differential_privacy", "secure_aggregation")
    policy = SitePolicy(privacy_floor=floor, peers={"b": "AB" * 32}, privacy=SitePrivacy(**PROMISE))
    policy.check_terms(terms(privacy=private, config=secure))
    for lacking in (terms(privacy=private, config={}), terms(privacy={}, config=secure)):
        with pytest.raises(PolicyError, match="privacy_floor"):
            policy.check_terms(lacking)


def test_every_metric_that_a_new_site_lets_out_is_wanted() -> None:
    assert set(SitePolicy().metrics) <= {*METRICS_WANTED, *TOLD_BY_A_PERSON}
    assert not {*METRICS_WANTED} & {*TOLD_BY_A_PERSON}, "a run never asks for those"


def test_a_metric_that_the_contract_does_not_want_stays(tmp_path: Path) -> None:
    study, sites = enrolled.three(tmp_path, metrics=["*"])
    grid = enrolled.Wire(sites)
    store = enrolled.run(grid, study, tmp_path / "run")
    assert set(store.history()[0]["site_metrics"]["a"]) == {"loss_pull"}


def test_from_nothing_to_enrolled_by_commands(tmp_path: Path, capsys) -> None:
    """Every step as the administrator types it; the coordinator's part by its library."""
    authority = Authority.create(tmp_path / "authority", "heart")
    site = tmp_path / "site"
    asks = ["enroll", "--study", enrolled.URL, "--name", "north", "--modalities", "ehr", "wearable"]
    assert command(site, *asks) == 0
    said = capsys.readouterr().out
    request = read_request((site / "request.zip").read_bytes())
    assert request.words in said
    assert not any(value in said for value in request.fingerprints().values())
    assert SitePolicy.read(site / "site.yaml").require_approval
    assert command(site, "status") == 0
    said = capsys.readouterr().out
    assert "This site has made its request and has no kit yet" in said
    assert request.words in said

    kit = tmp_path / "kit.zip"
    kit.write_bytes(make_kit(authority, request, url=enrolled.URL, node_id=7))
    assert command(site, "enroll", "--kit", str(kit)) == 9
    assert "HF-809" in capsys.readouterr().err
    assert command(site, "enroll", "--kit", str(kit), "--root", *request.words.split()) == 9
    assert f"the words {authority.words!r}" in capsys.readouterr().err
    assert command(site, "enroll", "--kit", str(kit), "--root", *authority.words.split()) == 0
    said = capsys.readouterr().out
    assert "This site is north in the study heart" in said
    assert authority.words in said

    (site / "site.yaml").write_text("k_min: 7\n")
    assert command(site, *asks) == 0, "said again it makes the request again, with the same keys"
    assert read_request((site / "request.zip").read_bytes()).node == request.node
    assert (site / "site.yaml").read_text() == "k_min: 7\n"
    assert command(site, *asks[:-4], "south") == 9
    assert "HF-801" in capsys.readouterr().err

    assert command(site, "status", "--json") == 0
    status = json.loads(capsys.readouterr().out)
    assert (status["site"], status["state"], status["lines_in_log"]) == ("north", "open", 0)
    assert status["processes_run"] is False
    assert status["signing_key"] == request.fingerprints()["signing"], "what other sites list"
    words = {name: status[f"{name}_words"] for name in ("root", "own", "signing")}
    assert (words["root"], words["own"]) == (authority.words, request.words)
    assert words["signing"] == fingerprint.in_words(status["signing_key"])
    assert (status["root_fingerprint"], status["own_fingerprint"]) == (
        authority.fingerprint,
        request.fingerprints()["tls"],
    )
    assert command(site, "status") == 0
    printed = capsys.readouterr().out
    assert all(value in printed for value in words.values())
    assert authority.fingerprint not in printed
    assert "not joined. This site has its kit and does not take part yet." in printed
    lines = [line.rsplit(maxsplit=1) for line in printed.splitlines()]
    shown = {name.strip(): value for name, value in lines}
    assert (shown["lines in log"], shown["runs waiting"]) == ("0", "0")
    assert (shown["processes run"], shown["last left"]) == ("no", "nothing")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["enroll"], "HF-103"),
        (["enroll", "--study", "http://x", "--name", "a"], "HF-810"),
        (["enroll", "--study", "https://x", "--name", "a/b"], "HF-810"),
        (["enroll", "--kit", "nowhere.zip"], "HF-107"),
        (["status"], "HF-830"),
        (["deny", "0123456789abcdef"], "HF-830"),
    ],
)
def test_what_an_administrator_can_do_wrong_is_one_sentence_with_a_code(
    tmp_path: Path, capsys, words: list[str], code: str
) -> None:
    assert command(tmp_path / "site", *words) not in {0, 1}
    said = capsys.readouterr().err
    assert code in said
    assert said.count("\n") == 1


def test_commands_of_an_empty_site_say_so(tmp_path: Path, capsys) -> None:
    SiteKeys.create(SiteHome(tmp_path).keys)
    assert command(tmp_path, "deny", "0123456789abcdef") == 6
    assert "HF-503" in capsys.readouterr().err
    assert command(tmp_path, "requests") == command(tmp_path, "audit") == 0
    assert capsys.readouterr().out == "No run has asked.\nNothing has left this site.\n"


def test_the_kinds_of_message_are_those_that_are_documented() -> None:
    assert set(protocol.LEAVING) == {
        protocol.DRY_RUN,
        protocol.STATISTICS,
        protocol.PREPARE,
        protocol.TRAIN,
        protocol.KEYS,
        protocol.SHARES,
        protocol.UNMASK,
    }


MASKED = {"enabled": True, "min_sites": 3}
SUMS = {"federation": {"aggregation": {"secure": MASKED}}}
NOISED = {"federation": {"aggregation": {"secure": {**MASKED, "epsilon": 3.0}}}}


@pytest.mark.parametrize(
    ("policy", "asked"),
    [
        (SitePolicy(), {"privacy": {"mode": "distributed"}, "config": SUMS}),
        (SitePolicy(), {"privacy": {}, "config": NOISED}),
        (SitePolicy(privacy_floor=("secure_aggregation",)), {"privacy": {}, "config": SUMS}),
    ],
)
def test_no_site_relies_on_others_noise_or_masks_without_a_list_of_them(
    policy: SitePolicy, asked: dict[str, Any]
) -> None:
    """Invented sites would share the noise and add none, and surround the one that is left."""
    with pytest.raises(PolicyError, match=r"HF-501.*policy, peers"):
        policy.check_terms(terms(**asked))
    listed = policy.model_copy(update={"peers": {"b": "AB" * 32}})
    listed.check_terms(terms(**asked))


def test_no_run_sums_fewer_sites_than_the_site_wants() -> None:
    policy = SitePolicy.model_validate({"sums": {"min_sites": 4}})
    with pytest.raises(PolicyError, match=r"HF-501.*sums.min_sites.*3 sites"):
        policy.check_terms(terms(privacy={}, config=SUMS))


@pytest.mark.parametrize("more", [[], ["--modalities"]])
def test_a_request_says_which_modalities_a_site_has_only_where_it_is_told_to(
    tmp_path: Path, more: list[str]
) -> None:
    asked = ["--study", enrolled.URL, "--name", "b", *more]
    assert main(["enroll", "--site", str(tmp_path / "b"), *asked]) == 0
    request = read_request((tmp_path / "b" / "request.zip").read_bytes())
    assert request.modalities == ()
    policy = SitePolicy.read(tmp_path / "b" / "site.yaml")
    assert policy.modalities == ("ehr", "wearable", "genomics")


def test_what_a_site_enrols_with_is_all_that_its_policy_permits(tmp_path: Path, capsys) -> None:
    asked = ["enroll", "--study", enrolled.URL, "--name", "b", "--modalities", "wearable", "ehr"]
    assert command(tmp_path, *asked) == 0
    assert read_request((tmp_path / "request.zip").read_bytes()).modalities == ("ehr", "wearable")
    policy = SitePolicy.read(tmp_path / "site.yaml")
    assert policy.modalities == ("ehr", "wearable")
    assert policy.permitted(None) == ("ehr", "wearable")
    assert policy.require_approval, "the rest is as in the example"
    assert "permits more" not in capsys.readouterr().out
    levels = {finding.level for finding in site_files.policy(SiteHome(tmp_path))}
    assert "fail" not in levels

    (tmp_path / "site.yaml").write_text("k_min: 7\n")
    assert command(tmp_path, *asked) == 0
    assert "site.yaml permits more than the request names: genomics" in capsys.readouterr().out
    (failed,) = (f for f in site_files.policy(SiteHome(tmp_path)) if f.level == "fail")
    assert "it permits genomics, which this site did not enrol with" in failed.seen
