"""The ledger: nothing is spent that was not written down before, whatever dies when."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from healthfm_core.errors import PrivacyError
from healthfm_core.privacy.accounting import Mechanism, epsilon, merge_steps
from healthfm_core.privacy.ledger import Ledger, PrivacyLimits, spent_mechanisms

DELTA = 1e-5
FREE = PrivacyLimits(DELTA)
ROUND = Mechanism(2.0, 0.1, 20)


@pytest.fixture
def ledger(tmp_path):
    return Ledger(tmp_path / "ledger.jsonl", clock=lambda: 1000.0)


def test_a_reservation_counts_in_full_until_less_was_spent(ledger):
    first = ledger.reserve("a", "study a", 1, ROUND, FREE)
    ledger.reserve("b", "study b", 1, ROUND, FREE)
    assert spent_mechanisms(ledger.entries()) == [ROUND, ROUND]
    ledger.spend(first, 7)
    ledger.commit(first)
    assert spent_mechanisms(ledger.entries()) == [Mechanism(2.0, 0.1, 7), ROUND]
    assert spent_mechanisms(ledger.entries(), "a") == [Mechanism(2.0, 0.1, 7)]
    assert [e.event for e in ledger.entries()] == ["reserve", "reserve", "spend", "commit"]


def test_a_line_remembers_that_its_noise_was_shared_and_older_lines_stay_as_they_are(ledger):
    limits = PrivacyLimits(1e-5)
    for number, discrete in enumerate([False, True]):
        ledger.reserve("one", "one", number + 1, Mechanism(8.0, 1.0, 1, discrete), limits)
        ledger.commit(number * 2)
    lines = [json.loads(line) for line in ledger.path.read_bytes().splitlines()]
    assert ["discrete" in line for line in lines] == [False, False, True, True]
    spent = spent_mechanisms(ledger.entries())
    assert sorted(part.discrete for part in merge_steps(spent)) == [False, True]


def test_only_its_owner_reads_the_file(ledger):
    ledger.reserve("a", "a", 1, ROUND, FREE)
    assert ledger.path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "wrong",
    [
        lambda ledger, n: ledger.spend(n, ROUND.steps + 1),
        lambda ledger, n: ledger.spend(n + 1, 1),
        lambda ledger, n: (ledger.spend(n, 3), ledger.spend(n, 2)),
        lambda ledger, n: ledger.spend(n, -1),
    ],
    ids=["more than reserved", "no reservation", "twice", "less than nothing"],
)
def test_what_was_not_reserved_cannot_be_spent(ledger, wrong):
    number = ledger.reserve("a", "a", 1, ROUND, FREE)
    with pytest.raises(PrivacyError, match="HF-602"):
        wrong(ledger, number)


def lines_of(ledger) -> list[bytes]:
    return ledger.path.read_bytes().splitlines(keepends=True)


def changed(line: bytes, **values) -> bytes:
    return json.dumps({**json.loads(line), **values}, sort_keys=True).encode() + b"\n"


@pytest.mark.parametrize(
    "tamper",
    [
        lambda lines: [lines[0], changed(lines[1], steps=1), *lines[2:]],
        lambda lines: [changed(lines[0], noise_multiplier=9.0), *lines[1:]],
        lambda lines: [*lines[:1], *lines[2:]],
        lambda lines: [lines[1], lines[0], *lines[2:]],
        lambda lines: [*lines, lines[-1]],
        lambda lines: [lines[0], b"not a line\n", *lines[1:]],
        lambda lines: lines[1:],
    ],
    ids=["steps", "noise", "taken out", "swapped", "repeated", "put in", "beheaded"],
)
def test_a_line_that_is_not_as_it_was_written_is_found(ledger, tamper):
    for round_ in range(1, 3):
        ledger.spend(ledger.reserve("a", "a", round_, ROUND, FREE), 5)
    ledger.path.write_bytes(b"".join(tamper(lines_of(ledger))))
    with pytest.raises(PrivacyError, match="HF-602"):
        ledger.entries()
    with pytest.raises(PrivacyError, match="HF-602"):
        ledger.reserve("a", "a", 3, ROUND, FREE)


def test_a_line_that_was_never_finished_is_cut_off(ledger):
    number = ledger.reserve("a", "a", 1, ROUND, FREE)
    whole = ledger.path.read_bytes()
    ledger.spend(number, 3)
    spend = ledger.path.read_bytes()[len(whole) :]
    for length in range(1, len(spend)):
        ledger.path.write_bytes(whole + spend[:length])
        assert spent_mechanisms(ledger.entries()) == [ROUND]
    ledger.reserve("a", "a", 2, ROUND, FREE)
    assert spent_mechanisms(ledger.entries()) == [ROUND, ROUND]


def test_a_round_that_would_pass_a_limit_is_refused_and_not_written(ledger):
    cost = epsilon([Mechanism(2.0, 0.1, 40)], DELTA)
    of_study, of_life = (
        PrivacyLimits(DELTA, epsilon=1.01 * cost),
        PrivacyLimits(DELTA, epsilon_max=1.01 * cost),
    )
    ledger.reserve("a", "a", 1, ROUND, of_study)
    ledger.reserve("a", "a", 2, ROUND, of_study)
    before = ledger.path.read_bytes()
    with pytest.raises(PrivacyError, match=r"HF-601.*this study"):
        ledger.reserve("a", "a", 3, ROUND, of_study)
    with pytest.raises(PrivacyError, match=r"HF-601.*all studies together"):
        ledger.reserve("b", "b", 1, ROUND, of_life)
    assert ledger.path.read_bytes() == before
    ledger.reserve("b", "b", 1, ROUND, of_study)


def test_a_study_without_noise_is_written_down_once(ledger):
    for _ in range(3):
        ledger.note_unprotected("a", "a")
    (entry,) = ledger.entries()
    assert entry.event == "unprotected"
    assert spent_mechanisms([entry]) == []


def test_a_folder_that_is_not_there_is_one_sentence(tmp_path):
    with pytest.raises(PrivacyError, match="HF-603"):
        Ledger(tmp_path / "missing" / "ledger.jsonl").reserve("a", "a", 1, ROUND, FREE)


def full_disk(path: str) -> str:
    """Reserve until no more fits into the file, as on a full disk."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
    ledger = Ledger(Path(path))
    for round_ in range(100):
        try:
            ledger.reserve("a", "a", round_, ROUND, FREE)
        except PrivacyError as error:
            return f"{round_} {error.code}"
    return "never"


def test_a_full_disk_refuses_the_round_and_leaves_a_sound_ledger(tmp_path):
    path = tmp_path / "ledger.jsonl"
    with ProcessPoolExecutor(1, mp_context=get_context("fork")) as pool:
        rounds, code = pool.submit(full_disk, str(path)).result().split()
    assert code == "HF-603"
    assert len(Ledger(path).entries()) == int(rounds) > 2


def reserve_some(path: str) -> int:
    ledger = Ledger(Path(path))
    return sum(1 for _ in range(20) if ledger.reserve("a", "a", 1, ROUND, FREE) >= 0)


def test_two_processes_share_one_ledger(tmp_path):
    path = str(tmp_path / "ledger.jsonl")
    with ProcessPoolExecutor(2, mp_context=get_context("fork")) as pool:
        assert list(pool.map(reserve_some, [path, path])) == [20, 20]
    assert len(Ledger(Path(path)).entries()) == 40


def spend_for_ever(path: str, told: str, seed: int) -> None:
    """Reserve, train, spend, commit. Each step is told to a file before it is taken: a byte of
    what an attacker could have seen."""
    chance = random.Random(seed)
    out = os.open(told, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    ledger = Ledger(Path(path))
    for round_ in range(10**9):
        noise = chance.choice((1.0, 2.0))
        taken = chance.randint(0, 5)
        number = ledger.reserve("a", "a", round_, Mechanism(noise, 0.1, 5), FREE)
        for _ in range(taken):
            os.write(out, b"1" if noise == 1.0 else b"2")
            time.sleep(chance.random() * 1e-4)
        ledger.spend(number, taken)
        ledger.commit(number)


def size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def kill(folder: Path, times: int, chance: random.Random) -> set[str]:
    """Kill the spender at random moments; return which lines were the last to be written.

    After each kill the ledger verifies, and for each noise it counts at least the steps that were
    really taken, so that ε is at least what an attacker could claim.
    """
    path, told = folder / "ledger.jsonl", folder / "told"
    last = set()
    for _ in range(times):
        arguments = (str(path), str(told), chance.randrange(10**9))
        process = get_context("fork").Process(target=spend_for_ever, args=arguments)
        enough = size(told) + chance.randint(0, 4)
        process.start()
        while size(told) < enough:
            time.sleep(1e-4)
        time.sleep(chance.random() * 0.02)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        entries = Ledger(path).entries()
        really = told.read_bytes() if told.exists() else b""
        counted = {m.noise_multiplier: m.steps for m in merge_steps(spent_mechanisms(entries))}
        assert counted.get(1.0, 0) >= really.count(b"1")
        assert counted.get(2.0, 0) >= really.count(b"2")
        last |= {entry.event for entry in entries[-1:]}
    true = [Mechanism(1.0, 0.1, really.count(b"1")), Mechanism(2.0, 0.1, really.count(b"2"))]
    assert epsilon(spent_mechanisms(entries), DELTA, "rdp") >= epsilon(true, DELTA, "rdp") > 0
    return last


def test_a_site_killed_at_any_moment_never_counts_too_little(tmp_path):
    kill(tmp_path, 12, random.Random(0))


@pytest.mark.slow
def test_a_site_killed_until_it_has_been_killed_after_each_event_never_counts_too_little(tmp_path):
    chance, last, events = random.Random(1), set(), {"reserve", "spend", "commit"}
    for n in range(20):
        folder = tmp_path / str(n)
        folder.mkdir()
        last |= kill(folder, 10, chance)
        if n >= 3 and last == events:
            break
    assert last == events
