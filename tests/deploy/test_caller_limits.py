"""Who has to go when the public port is full, and who is never locked out."""

from __future__ import annotations

import heapq

import pytest

from healthfm_server.deploy.caller_limits import (
    DAY_S,
    MOST_ADDRESSES,
    Caller,
    CallerLimits,
    Callers,
    Pace,
    address_key,
)

SMALL = CallerLimits(unknown=40, unknown_address=8, speaking=10, site_connections=3)


def callers_of(limits=SMALL):
    return Callers(limits, 0.0)


def come(callers, address, now=0.0, number=1, stage="silent"):
    """Let callers come; return them and those that had to go."""
    made, gone = [], []
    for _ in range(number):
        caller = Caller(address, now, lambda: None)
        gone += callers.add(caller, now)
        if stage != "silent" and caller not in gone:
            gone += callers.speaks(caller, now)
        made.append(caller)
    return made, gone


def test_of_an_address_with_too_many_the_oldest_goes_and_nobody_is_refused():
    callers = callers_of()
    made, gone = come(callers, "a", number=20)
    assert gone == made[:12]
    assert len(callers) == 8


def test_a_caller_that_begins_tls_is_not_ended_by_silent_ones_of_its_address():
    callers = callers_of()
    (site,), _ = come(callers, "a", stage="speaking")
    made, gone = come(callers, "a", now=1.0, number=200)
    assert site not in gone
    assert gone == made[: len(gone)]


def test_when_all_is_full_the_busiest_address_loses_and_a_lone_caller_stays():
    callers = callers_of()
    (lone,), _ = come(callers, "lone")
    for number in range(30):
        _, gone = come(callers, f"noisy{number % 6}", now=1.0 + number, number=5)
        assert lone not in gone
    assert len(callers) <= 40


def test_tls_that_many_begin_is_limited_in_all():
    callers = callers_of()
    _, gone = come(callers, "a", number=6, stage="speaking")
    (lone,), _ = come(callers, "b", stage="speaking")
    _, more = come(callers, "c", number=8, stage="speaking")
    assert sum(caller.stage == "speaking" for caller in callers) == 10
    assert lone not in gone + more


def test_a_sites_connections_are_ended_by_nobodys_noise():
    callers = callers_of()
    (site,), _ = come(callers, "nat")
    assert callers.is_site(site, "north", 0.0) == []
    for address in ("nat", "b", "c", "d", "e", "f", "g"):
        _, gone = come(callers, address, now=1.0, number=500, stage="speaking")
        assert site not in gone
    assert site in list(callers)


def test_one_site_cannot_take_the_place_of_others():
    callers = callers_of()
    (other,), _ = come(callers, "b")
    callers.is_site(other, "south", 0.0)
    made, _ = come(callers, "a", number=5)
    gone = [caller for each in made for caller in callers.is_site(each, "north", 0.0)]
    assert gone == made[:2]
    assert other in list(callers)


def turns(callers, address, number, now=0.0):
    """How long so many handshakes of an address wait for each other, None for those refused."""
    caller = Caller(address, now, lambda: None)
    return [callers.turn_s(caller, now) for _ in range(number)]


def test_an_addresss_handshakes_wait_for_themselves():
    callers = callers_of(CallerLimits(speaking=512))
    waits = turns(callers, "noisy", 1000)
    assert waits[:100] == [0.0] * 100  # 50 a second, two seconds of it at once
    assert waits[100:228] == pytest.approx([0.02 * n for n in range(1, 129)])  # a quarter of 512
    assert set(waits[228:]) == {None}
    assert turns(callers, "b", 1) == [0.0]


def test_an_addresss_connections_beyond_its_pace_are_refused():
    callers = callers_of()
    assert [callers.takes("noisy", 0.0) for _ in range(3000)].count(True) == 1000
    assert callers.takes("b", 0.0)
    assert callers.takes("noisy", 1.0)


def test_many_addresses_take_nothing_from_addresses_of_sites():
    callers = callers_of()
    callers.site_was_at("hospital", 0.0)
    stranger, hospital = (Caller(name, 0.0, lambda: None) for name in ("b", "hospital"))
    many = [callers.turn_of_all_s(stranger, 0.0) for _ in range(5000)]
    assert many.count(0.0) == 600
    assert many[-1] is None
    assert [callers.turn_of_all_s(hospital, 0.0) for _ in range(200)] == [0.0] * 200


def test_a_neighbour_at_a_sites_address_takes_half_the_pace_at_most():
    """Events in their order: a turn of all is asked for when the turn of the address has come."""
    callers = callers_of()
    for address in ("nat", "other"):
        callers.site_was_at(address, 0.0)
    neighbour, other = (Caller(address, 0.0, lambda: None) for address in ("nat", "other"))
    events, served = [], 0
    for step in range(10_000):
        now = step / 1000
        wait_s = callers.turn_s(neighbour, now)
        if wait_s is not None:
            heapq.heappush(events, now + wait_s)
        while events and events[0] <= now:
            assert callers.turn_of_all_s(neighbour, heapq.heappop(events)) == 0.0
            served += 1
        if step % 100 == 0:  # the other hospital's nodes, ten a second
            assert callers.turn_s(other, now) == callers.turn_of_all_s(other, now) == 0.0
    assert served == pytest.approx(300 * 10 + 600, abs=5)


@pytest.mark.parametrize("demand", [0.9, 1.1, 2.0, 5.0])
def test_more_handshakes_than_the_pace_leave_it_served_and_not_less(demand):
    """Half a minute of strangers at a site's address; who has to make room has waited in vain."""
    callers = callers_of(CallerLimits())
    callers.site_was_at("nat", 0.0)
    pace = callers.limits.handshakes.in_all / 2
    events, served, seconds = [], 0, 30.0
    for step in range(int(demand * pace * seconds)):
        now = step / (demand * pace)
        while events and events[0][0] <= now:
            _, _, caller = heapq.heappop(events)
            if not caller.ended:
                served += 1
                callers.forget(caller)
        caller = Caller("nat", now, lambda: None)
        for gone in callers.add(caller, now):
            gone.ended = True
        wait_s = callers.turn_s(caller, now)
        if wait_s is None:
            callers.forget(caller)
            continue
        for gone in callers.speaks(caller, now):
            gone.ended = True
        heapq.heappush(events, (now + wait_s + 0.05, step, caller))
    assert served >= 0.95 * min(1.0, demand) * pace * seconds


def test_after_a_day_without_a_site_an_address_is_like_any_other():
    callers = callers_of()
    callers.site_was_at("hospital", 0.0)
    assert turns(callers, "hospital", 1000, now=DAY_S + 1).count(0.0) == 100


def test_what_is_remembered_of_addresses_is_bounded():
    callers = callers_of()
    for number in range(3 * MOST_ADDRESSES):
        callers.takes(str(number), 0.0)
        turns(callers, str(number), 1)
        callers.site_was_at(str(number), 0.0)
    for rows in (callers._connections.of, callers._handshakes.of, callers._homes):
        assert len(rows) == MOST_ADDRESSES


def test_who_is_gone_is_forgotten():
    callers = callers_of()
    (caller,), _ = come(callers, "a")
    callers.forget(caller)
    callers.forget(caller)
    assert (len(callers), list(callers), callers._groups) == (0, [], {})


def test_a_site_that_calls_too_fast_waits_and_is_not_refused():
    pace = Pace(per_s=10.0, most=5.0, now_s=0.0)
    assert [pace.take(0.0) for _ in range(5)] == [0.0] * 5
    assert [pace.take(0.0) for _ in range(3)] == pytest.approx([0.1, 0.2, 0.3])
    assert pace.take(10.0) == 0.0


def test_few_file_descriptors_give_lower_limits():
    assert CallerLimits().within(1024).unknown == 256
    assert CallerLimits().within(65536) == CallerLimits()


@pytest.mark.parametrize(
    ("host", "key"),
    [
        ("10.1.2.3", "10.1.2.3"),
        ("::ffff:10.1.2.3", "10.1.2.3"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
    ],
)
def test_an_ipv6_network_is_one_address(host, key):
    assert address_key(host) == key
