"""Replies are told of in one question and fetched one by one, and a missing piece is asked soon."""

from __future__ import annotations

import math
import resource
import threading

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Metadata, RecordDict
from flwr.app.message import make_message, remove_content_from_message
from flwr.common.serde import message_to_proto
from flwr.proto.message_pb2 import PullObjectResponse
from flwr.proto.runtime_pb2 import PullAppMessagesResponse
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.inflatable.inflatable_utils import ObjectUnavailableError, pull_objects
from flwr.supercore.run import Run
from flwr.superlink.grid.http_grid import HttpGrid

from healthfm_client.runtime import flower_processes
from healthfm_client.transport.site_array_records import to_record
from healthfm_core.errors import RunError
from healthfm_core.flower.supernode_internals import PIECE_FETCHERS
from healthfm_server.transport.array_records import read
from healthfm_server.transport.flower_grid import replies

MOST = 2**20
"""Bytes that the arrays of a reply may have here."""


class SuperLink:
    """Flower's client to a SuperLink that holds replies; each piece is late `late` times."""

    def __init__(self, sites, late=0, lost=(), arrays=None):
        self.held, self.trees, self.known = {}, [], []
        self.questions, self.fetched, self.late, self.lost = 0, [], {}, lost
        self._late = late
        for site in sites:
            content = RecordDict({"site": ConfigRecord({"number": site})})
            if arrays is not None:
                content["arrays"] = arrays
            about = Metadata(1, "", site, 1, f"asked-{site}", "1", 0.0, 60.0, "train")
            reply = make_message(about, content)
            reply.metadata.__dict__["_message_id"] = reply.object_id
            self.held |= {k: (site, v.deflate()) for k, v in get_all_nested_objects(reply).items()}
            self.trees.append(get_object_tree(reply))
            self.known.append(message_to_proto(remove_content_from_message(reply)))

    def PullMessages(self, request):
        self.questions += 1
        return PullAppMessagesResponse(messages_list=self.known, message_object_trees=self.trees)

    def PullObject(self, request):
        site, content = self.held[request.object_id]
        times = self.late[request.object_id] = self.late.get(request.object_id, 0) + 1
        if site in self.lost:
            return PullObjectResponse(object_found=False)
        if times <= self._late:
            return PullObjectResponse(object_found=True, object_available=False)
        self.fetched.append(site)
        return PullObjectResponse(object_found=True, object_available=True, object_content=content)

    def ConfirmMessageReceived(self, request):
        pass


def grid_of(link):
    grid = HttpGrid(token="t")
    grid._client = link
    grid.set_run(Run.create_empty(1))
    return grid


def test_one_question_tells_of_all_replies_and_each_is_fetched_when_its_turn_is(tmp_path):
    link = SuperLink([7, 8])
    found = replies(grid_of(link), dict.fromkeys(["asked-7", "asked-8"], MOST), tmp_path)
    first = next(found)
    assert first.content["site"]["number"] == 7
    assert set(link.fetched) == {7}
    assert next(found).content["site"]["number"] == 8
    assert link.questions == 1


@pytest.fixture
def pauses(monkeypatch):
    """Seconds that anything waited, as it asked for them; Flower's own first pause is one."""
    found, wait = [], threading.Event.wait

    def noted(event, timeout=None):
        if timeout is not None:
            found.append(timeout)
        return wait(event, timeout)

    monkeypatch.setattr(threading.Event, "wait", noted)
    return found


def test_a_piece_on_its_way_is_asked_for_again_within_a_tenth_of_a_second(pauses, tmp_path):
    assert len(list(replies(grid_of(SuperLink([7], late=1)), {"asked-7": MOST}, tmp_path))) == 1
    assert 0 < max(pauses) < 0.1


def test_a_reply_that_broke_off_is_an_error_of_its_senders(tmp_path):
    link = SuperLink([7, 8], lost=[7])
    lost, whole = replies(grid_of(link), dict.fromkeys(["asked-7", "asked-8"], MOST), tmp_path)
    assert lost.has_error()
    assert (lost.metadata.src_node_id, lost.metadata.reply_to_message_id) == (7, "asked-7")
    assert whole.content["site"]["number"] == 8


@pytest.fixture
def small_pieces(monkeypatch):
    """Flower cuts arrays into pieces of 64 bytes."""
    monkeypatch.setattr("flwr.app.message.array.FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE", 64)


def test_what_a_site_sent_in_pieces_is_read_off_the_disk_as_it_was(small_pieces, tmp_path):
    rng = np.random.default_rng(0)
    sent = {
        "backbone.w": rng.standard_normal((30, 4)).astype(np.float32),
        "heads.w": np.zeros(100, np.float32),  # many equal pieces, which come once
        "heads.b": np.array(2, np.float32),
        "heads.none": np.zeros((0, 3), np.float32),
    }
    link = SuperLink([7], arrays=to_record(sent))
    (reply,) = replies(grid_of(link), {"asked-7": MOST}, tmp_path)
    assert len(link.fetched) == len(set(link.held)) > 10
    assert not list(tmp_path.iterdir())  # the file has no name
    found = read(reply.content.array_records["arrays"])
    assert sorted(found) == sorted(sent)
    for name, array in sent.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].shape == array.shape
        assert not found[name].flags.writeable


def test_a_few_pieces_that_stand_for_more_than_an_answer_may_have_fill_no_disk(
    small_pieces, tmp_path
):
    """Equal pieces come once: a header that names one a million times would be a full disk."""
    link = SuperLink([7], arrays=to_record({"w": np.zeros(10_000, np.float32)}))
    (reply,) = replies(grid_of(link), {"asked-7": 20_000}, tmp_path)
    assert reply.has_error()
    assert reply.error.reason == "its reply cannot be read"
    (whole,) = replies(grid_of(link), {"asked-7": 50_000}, tmp_path)
    assert whole.has_content()


def test_two_records_of_arrays_lie_side_by_side(small_pieces, tmp_path):
    first, second = (to_record({"w": np.full(40, n, np.float32)})["arrays"] for n in (1, 2))
    link = SuperLink([7], arrays=ArrayRecord({"a": first, "b": second}))
    (reply,) = replies(grid_of(link), {"asked-7": MOST}, tmp_path)
    pieces = reply.content.array_records["arrays"]
    assert bytes(pieces["a"].data) == first.data
    assert bytes(pieces["b"].data) == second.data


@pytest.mark.parametrize(
    "body",
    [b"no json", b"[]", b"{}", b'{"arraychunk_ids": [7]}', b'{"arraychunk_ids": 1}', b"[" * 10**5],
)
def test_a_reply_that_makes_no_sense_is_an_error_of_its_senders(body, tmp_path):
    """Else a hostile site would end the coordinator's round with one bad message."""
    link = SuperLink([7], arrays=to_record({"w": np.zeros(4, np.float32)}))
    for number, (site, content) in link.held.items():
        if content.startswith(b"Array "):
            head = content.split(b" ")[1]
            link.held[number] = site, b"Array %s %d\0" % (head, len(body)) + body
    (bad,) = replies(grid_of(link), {"asked-7": MOST}, tmp_path)
    assert bad.has_error()
    assert bad.error.reason == "its reply cannot be read"
    assert (bad.metadata.src_node_id, bad.metadata.reply_to_message_id) == (7, "asked-7")


def test_a_disk_without_room_for_a_reply_is_named(tmp_path):
    link = SuperLink([7], arrays=to_record({"w": np.zeros(4, np.float32)}))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        with pytest.raises(RunError, match=r"HF-725.*room on the disk"):
            list(replies(grid_of(link), {"asked-7": MOST}, tmp_path))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_flowers_own_pulls_ask_again_soon_while_a_site_works_and_as_before_afterwards(pauses):
    def late(times):
        def pull(name):
            if times:
                times.pop()
                raise ObjectUnavailableError(name)
            return b"x"

        return pull

    with flower_processes._fast_piece_retries():
        assert pull_objects(["a"], late([1])) == {"a": b"x"}
    assert 0 < max(pauses) < 0.1
    assert all(function.__kwdefaults__["initial_backoff"] == 1 for function in PIECE_FETCHERS)


@pytest.mark.parametrize(
    ("waited_s", "pause_s"), [(0, 0.25), (5, 0.25), (20, 1.0), (60, 3.0), (math.inf, 3.0)]
)
def test_a_node_asks_less_often_the_longer_it_has_waited(waited_s, pause_s):
    assert flower_processes.node_pause_s(waited_s) == pytest.approx(pause_s)
