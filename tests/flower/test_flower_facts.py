"""Each fact of Flower's insides that HealthFM relies on, held against Flower itself.

A new release is judged so: `pip install flwr==NEW`, then these, then `make test-deployment`. What
fails names what healthfm_core.flower has to say otherwise.
"""

from __future__ import annotations

import inspect
import logging
import re
import sqlite3
from contextlib import closing

import flwr.supercore.corestate.in_memory_corestate as tasks_module
import flwr.supercore.heartbeat as heartbeat_module
import flwr.superlink.dependencies.account
import flwr.supernode.fleet_http_connection as connection_module
import flwr.supernode.runtime.run_clientapp as clientapp_module
import flwr.supernode.start_client_internal as node_module
import httpx
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, generate_private_key
from flwr.app import Array, ConfigRecord, Message, RecordDict
from flwr.cli.build import build_fab_from_files
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    ListNodesResponse,
    ListRunsRequest,
    ListRunsResponse,
    StartRunRequest,
    StartRunResponse,
)
from flwr.proto.fleet_pb2 import ActivateNodeRequest, ActivateNodeResponse
from flwr.proto.runtime_pb2 import AcquireTaskRequest
from flwr.supercore.protobuf.constants import PROTOBUF_MEDIA_TYPE

import healthfm_client.runtime.flower_processes  # noqa: F401  (what it replaces is looked at below)
from healthfm_core.flower.flower_database import online_until, orders_taken
from healthfm_core.flower.grid_internals import HttpGrid, runtime_client
from healthfm_core.flower.message_internals import (
    SUPERLINK_NODE_ID,
    set_message_id,
    set_sender,
    take_identity,
    twin,
)
from healthfm_core.flower.supernode_internals import PIECE_FETCHERS
from healthfm_server.deploy.flower_superlink import (
    _BUNDLE,
    Control,
    SuperLinkSettings,
    forget_node,
    register_node,
    superlink_app,
)
from healthfm_server.deploy.gateway import CALLS, PASSED_ON
from tests.deploy.serving import PATIENCE_S, free_port, served

PROTOBUF = {"content-type": PROTOBUF_MEDIA_TYPE, "accept": PROTOBUF_MEDIA_TYPE}


@pytest.fixture(scope="module")
def link(tmp_path_factory):
    """A SuperLink, its database, and what it noted."""
    noted = []
    database = tmp_path_factory.mktemp("link") / "superlink.db"
    app = superlink_app(
        SuperLinkSettings(
            database=database,
            secret=b"s" * 32,
            port=9,
            account=lambda token: "ada" if token == "right" else None,
            note=lambda event, details: noted.append((event, dict(details))),
        )
    )
    port = free_port()
    with (
        served(app, port),
        httpx.Client(
            base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=PATIENCE_S
        ) as client,
    ):
        yield client, database, noted


def call(client, path, request, token=None):
    headers = {**PROTOBUF, **({"authorization": f"Bearer {token}"} if token else {})}
    return client.post(path, content=request.SerializeToString(), headers=headers)


@pytest.mark.parametrize("token", [None, "wrong"])
@pytest.mark.parametrize(
    ("path", "request_"),
    [
        ("/v1/control/start-run", StartRunRequest()),
        ("/v1/control/list-nodes", ListNodesRequest()),
        ("/v1/control/list-runs", ListRunsRequest()),
    ],
)
def test_nobody_controls_without_a_token(link, path, request_, token):
    client, _, noted = link
    assert call(client, path, request_, token).status_code == 401
    assert noted[-1][0] == "control refused"


def test_a_serverapp_is_handed_to_nobody_without_the_secret(link):
    client, _, _ = link
    answer = call(client, "/v1/runtime/acquire-task", AcquireTaskRequest(), "right")
    assert answer.status_code == 401


def test_a_node_without_its_key_is_refused(link):
    client, _, _ = link
    answer = call(client, "/v1/fleet/activate-node", ActivateNodeRequest(public_key=b"x"))
    assert answer.status_code == 401


def test_who_has_a_token_starts_a_run_that_holds_no_code_and_it_is_noted(link):
    client, _, noted = link
    content, _ = build_fab_from_files({"pyproject.toml": _BUNDLE.format(version="1.0.0").encode()})
    assert b".py" not in content.replace(b"pyproject", b"")
    request = StartRunRequest()
    request.fab.content = content
    answer = call(client, "/v1/control/start-run", request, "right")
    run_id = StartRunResponse.FromString(answer.content).run_id
    assert run_id
    assert noted[-1] == (
        "control start-run",
        {"outcome": "done", "from": "127.0.0.1", "run": str(run_id)},
    )
    runs = call(client, "/v1/control/list-runs", ListRunsRequest(limit=200), "right")
    found = ListRunsResponse.FromString(runs.content).run_dict[run_id]
    assert found.status.status == "pending"


def test_a_node_is_registered_once_while_the_superlink_runs_and_taken_back(link):
    client, database, _ = link
    key = generate_private_key(SECP384R1()).public_key()
    number = register_node(database, key)
    assert register_node(database, key) == number

    def listed():
        answer = call(client, "/v1/control/list-nodes", ListNodesRequest(), "right")
        nodes = ListNodesResponse.FromString(answer.content).nodes_info
        return [n.node_id for n in nodes if n.status != "unregistered"]

    assert number in listed()
    forget_node(database, number)
    assert number not in listed()
    forget_node(database, number)


def test_what_the_client_replaces_is_there_and_used_by_name():
    source = inspect.getsource(node_module.start_client_internal)
    for name in ("_pull_and_store_message(", "_push_messages(", "time.sleep(3)"):
        assert name in source
    assert "time.sleep(0.5)" in inspect.getsource(node_module._push_messages)
    connect = inspect.getsource(connection_module.http_request_response)
    assert "FleetHttpClient.from_server_address(" in connect


def test_the_pieces_of_flowers_own_worker_have_the_shape_that_ours_uses():
    wanted = {
        "pull_task_input": ["client"],
        "push_message": ["client", "message", "context"],
        "push_task_output": ["client", "context", "sub_status", "details"],
    }
    for name, parameters in wanted.items():
        found = inspect.signature(getattr(clientapp_module, name)).parameters
        assert list(found) == parameters


def test_control_takes_its_token_from_the_authorization_header():
    source = inspect.getsource(flwr.superlink.dependencies.account)
    assert 'getlist("authorization")' in source


def test_flowers_logger_writes_no_second_line():
    assert logging.getLogger("flwr").handlers == []


def test_a_workers_lease_is_read_when_it_is_given_so_that_ours_counts():
    for function in ("claim_task", "activate_task", "acknowledge_task_heartbeat"):
        source = inspect.getsource(getattr(tasks_module.InMemoryCoreState, function))
        assert "HEARTBEAT_DEFAULT_INTERVAL" in source
    beat = inspect.getsource(heartbeat_module.HeartbeatSender._run)
    assert "HEARTBEAT_DEFAULT_INTERVAL - HEARTBEAT_CALL_TIMEOUT" in beat


def test_a_run_that_is_not_over_is_found_by_its_folder(link):
    client, _, _ = link
    control = Control(client.base_url.port, "right")
    try:
        number = control.start({"folder": "/runs/a", "config": ""}, "1.0.0")
        assert control.live("/runs/a") == number
        assert control.live("/runs/b") is None
        control.stop(number)
        assert control.live("/runs/a") is None
    finally:
        control.close()


def test_a_node_calls_what_the_gateway_lets_through_and_two_that_its_kit_does_for_it():
    source = inspect.getsource(connection_module.FleetHttpClient)
    calls = set(re.findall(r'"/v1/fleet/([^"]+)"', source))
    assert calls - {"register-node", "unregister-node"} == set(CALLS)


def test_the_headers_of_a_node_are_let_through(link):
    key = generate_private_key(SECP384R1())
    seen = []
    interceptors = [
        connection_module.RuntimeVersionHttpInterceptor(component_name="SuperNode"),
        connection_module.NodeAuthHttpInterceptor(key, key.public_key()),
    ]
    client = connection_module.FleetHttpClient("http://127.0.0.1:9", interceptors=interceptors)

    def keep(request):
        seen.extend(request.headers)
        return httpx.Response(200, content=ActivateNodeResponse().SerializeToString())

    client._client = httpx.Client(transport=httpx.MockTransport(keep))
    client.ActivateNode(ActivateNodeRequest(public_key=b"x"))
    assert set(seen) - PASSED_ON == {"host", "connection", "user-agent"}


def test_which_orders_were_taken_stands_in_flowers_database(link):
    _, database, _ = link
    assert orders_taken(database, 5) == {}
    with closing(sqlite3.connect(database)) as opened, opened:
        opened.execute("PRAGMA foreign_keys = OFF")
        columns = "message_id, group_id, run_id, dst_node_id, created_at, delivered_at"
        rows = [
            ("a", "1", 5, -3, 1.0, "2026-11-24"),
            ("b", "2", 5, -3, 2.0, ""),
            ("c", "2", 5, 8, 2.0, "2026-11-24"),
            ("d", "2", 6, 9, 2.0, "2026-11-24"),
            ("e", "2", 7 - 2**63, 9, 2.0, "2026-11-24"),
        ]
        places = f"INSERT INTO message_ins ({columns}) VALUES (?, ?, ?, ?, ?, ?)"
        opened.executemany(places, rows)
    assert orders_taken(database, 5) == {2**64 - 3: False, 8: True}
    assert orders_taken(database, 2**63 + 7) == {9: True}


def message(to=7):
    content = RecordDict({"about": ConfigRecord({"round": 1})})
    return Message(content, dst_node_id=to, message_type="train")


def test_who_sends_is_the_identity_of_the_process_and_the_superlinks_number_is_the_coordinators():
    run = take_identity(5)
    assert run.run_id == 5
    assert message().metadata.src_node_id == SUPERLINK_NODE_ID
    assert message().metadata.run_id == 5


def test_a_messages_id_and_sender_are_read_from_where_they_are_set():
    take_identity()
    sent = message()
    set_message_id(sent, "m")
    set_sender(sent, 9)
    assert (sent.metadata.message_id, sent.metadata.src_node_id) == ("m", 9)
    assert Message(RecordDict(), reply_to=sent).metadata.reply_to_message_id == "m"


def test_another_array_over_the_same_bytes_has_all_that_an_array_has():
    array = Array(np.arange(3.0))
    other = twin(array)
    assert {"dtype", "shape", "stype", "data"} == other.__dict__.keys() - {"_is_dirty"}
    assert other.data is array.data
    assert other.numpy().tolist() == [0.0, 1.0, 2.0]


def test_the_deployments_grid_has_its_client_under_the_name_that_is_asked_for():
    grid = HttpGrid(token="t")
    grid._client = client = object()
    assert runtime_client(grid) is client


def test_how_soon_a_missing_piece_is_asked_for_again_is_a_keyword_with_a_default():
    for function in PIECE_FETCHERS:
        assert function.__kwdefaults__["initial_backoff"] == 1


def test_a_node_that_never_connected_has_no_time_until_which_it_counts_as_connected(link):
    _, database, _ = link
    number = register_node(database, generate_private_key(SECP384R1()).public_key())
    assert number not in online_until(database)
    with closing(sqlite3.connect(database)) as opened, opened:
        signed = number - 2**64 if number >= 2**63 else number
        opened.execute("UPDATE node SET online_until = 12.5 WHERE node_id = ?", (signed,))
    assert online_until(database)[number] == 12.5
