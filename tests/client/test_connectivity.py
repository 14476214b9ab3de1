"""``doctor`` on the connection to a study: a real server over real TLS, and each thing wrong."""

from __future__ import annotations

import base64
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path

import pytest

from healthfm_client.__main__ import main
from healthfm_client.site.site_folder import JoinSettings, StoreChoice
from healthfm_client.site.site_home import SiteHome
from healthfm_core.federation import protocol
from healthfm_core.trust.authority import Authority
from healthfm_core.trust.certificates import now_utc
from healthfm_core.trust.kit import install_kit, make_kit
from healthfm_core.trust.request import make_request, read_request
from healthfm_core.trust.site_keys import SiteKeys


class Server:
    """A study's front as far as a doctor sees it: a certificate, a date, and whom it knows."""

    def __init__(self, authority: Authority, folder: Path, **issue: object) -> None:
        key, chain = authority.issue_server(["localhost"], **issue)
        folder.mkdir()
        (folder / "identity.pem").write_bytes(key + chain)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "identity.pem")
        context.load_verify_locations(cadata=authority.roots_pem().decode())
        context.verify_mode = ssl.CERT_REQUIRED
        self.ahead_s = 0.0
        self.known = "north"
        self.release: dict[str, object] = {}
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                said = {"study": "heart", "site": outer.known, **outer.release}
                found = json.dumps(said).encode()
                self.send_response_only(200 if outer.known else 401)
                when = datetime.now(UTC) + timedelta(seconds=outer.ahead_s)
                self.send_header("Date", format_datetime(when, usegmt=True))
                self.send_header("Content-Length", str(len(found)))
                self.end_headers()
                self.wfile.write(found)

            def log_message(self, *args: object) -> None:
                """Stay quiet."""

        class Quiet(ThreadingHTTPServer):
            def handle_error(self, *args: object) -> None:
                """A refused handshake is what some tests want."""

        self.http = Quiet(("127.0.0.1", 0), Handler)
        self.http.socket = context.wrap_socket(self.http.socket, server_side=True)
        self.port = self.http.server_address[1]
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()


class Proxy:
    """A CONNECT proxy that wants a password; it notes what it let through."""

    def __init__(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.passed: list[str] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self.socket.accept()
            except OSError:
                return
            threading.Thread(target=self._tunnel, args=(client,), daemon=True).start()

    def _tunnel(self, client: socket.socket) -> None:
        asked = client.recv(4096).decode()
        if base64.b64encode(b"us:secret").decode() not in asked:
            client.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
            client.close()
            return
        host, _, port = asked.split()[1].rpartition(":")
        self.passed.append(f"{host}:{port}")
        server = socket.create_connection((host, int(port)))
        client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        up = threading.Thread(target=self._pump, args=(client, server), daemon=True)
        up.start()
        self._pump(server, client)
        up.join()
        client.close()
        server.close()

    def _pump(self, one: socket.socket, other: socket.socket) -> None:
        try:
            while data := one.recv(65536):
                other.sendall(data)
            other.shutdown(socket.SHUT_WR)
        except OSError:
            one.close()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.create(tmp_path / "authority", "heart")


@pytest.fixture
def server(authority: Authority, tmp_path: Path) -> Iterator[Server]:
    server = Server(authority, tmp_path / "server")
    yield server
    server.close()


def site(authority: Authority, folder: Path, port: int, **kit: object) -> SiteHome:
    """An enrolled site whose study is at `port` here."""
    home, url = SiteHome(folder), f"https://localhost:{port}"
    keys = SiteKeys.create(home.keys)
    request = read_request(make_request(keys, "north", url, ["ehr"]))
    data = make_kit(authority, request, url=url, node_id=7, **kit)
    install_kit(data, home.study, keys, root_fingerprint=authority.fingerprint, now=kit.get("now"))
    home.policy.write_text("")
    return home


def examined(home: SiteHome, capsys) -> tuple[int, dict[str, list[dict[str, str]]]]:
    """Run doctor; return its exit code and its findings by name."""
    code = main(["doctor", "--site", str(home.path), "--json"])
    found: dict[str, list[dict[str, str]]] = {}
    for finding in json.loads(capsys.readouterr().out):
        found.setdefault(finding["name"], []).append(finding)
    return code, found


def only(found: dict[str, list[dict[str, str]]], name: str) -> tuple[str, str, str | None]:
    (one,) = found[name]
    return one["level"], one["seen"], one["code"]


@pytest.fixture(autouse=True)
def no_proxy_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)


def test_a_good_way_is_all_pass(authority, server, tmp_path, capsys) -> None:
    code, found = examined(site(authority, tmp_path / "site", server.port), capsys)
    for name in ("keys", "kit", "certificate", "log", "name", "tls", "clock", "study"):
        assert {one["level"] for one in found[name]} == {"pass"}, found[name]
    assert authority.fingerprint in found["root"][0]["seen"]
    assert only(found, "data")[2] == "HF-104"
    assert code == 2, "the only failure: no store was named yet"


@pytest.mark.parametrize(
    ("release", "spoken", "level"),
    [
        (version("healthfm"), protocol.VERSION, "pass"),
        ("0.0.1", protocol.VERSION, "warn"),
        ("9.9", protocol.VERSION + 1, "fail"),
    ],
)
def test_another_release_at_the_server_is_told(
    authority, server, tmp_path, capsys, release: str, spoken: int, level: str
) -> None:
    server.release = {"release": release, "protocol": spoken}
    _, found = examined(site(authority, tmp_path / "site", server.port), capsys)
    assert only(found, "release")[0] == level
    assert (only(found, "release")[2] == "HF-401") is (level == "fail")


@pytest.mark.parametrize(
    ("ahead_s", "level"),
    [(0, "pass"), (-5, "warn"), (-12, "fail"), (100, "warn"), (400, "fail")],
)
def test_a_wrong_clock_is_told_before_flower_refuses_it(
    authority, server, tmp_path, capsys, ahead_s: float, level: str
) -> None:
    server.ahead_s = ahead_s
    code, found = examined(site(authority, tmp_path / "site", server.port), capsys)
    assert only(found, "clock")[0] == level
    assert (only(found, "clock")[2] == "HF-409") is (level == "fail")
    assert code != 0


def test_a_server_of_another_root_is_told(authority, tmp_path, capsys) -> None:
    other = Authority.create(tmp_path / "other", "heart")
    stranger = Server(other, tmp_path / "stranger")
    code, found = examined(site(authority, tmp_path / "site", stranger.port), capsys)
    stranger.close()
    level, seen, number = only(found, "connection")
    assert (level, number) == ("fail", "HF-803")
    assert "self-signed" in seen or "unable to get" in seen or "signature" in seen
    assert code


def test_an_expired_server_and_an_expired_site_are_told(authority, tmp_path, capsys) -> None:
    then = now_utc() - timedelta(days=400)
    old = Authority.create(tmp_path / "old", "heart", now=then)
    expired = Server(old, tmp_path / "server", now=then)
    _, found = examined(site(old, tmp_path / "site", expired.port), capsys)
    assert "expired" in only(found, "connection")[1]
    _, found = examined(site(old, tmp_path / "late", expired.port, now=then), capsys)
    assert only(found, "enrolment")[2] == "HF-804"
    expired.close()


def test_a_certificate_that_ends_soon_is_a_warning(authority, server, tmp_path, capsys) -> None:
    _, found = examined(site(authority, tmp_path / "site", server.port, days=20), capsys)
    assert only(found, "certificate")[0] == "warn"


def test_a_site_that_the_server_does_not_know_is_told(authority, server, tmp_path, capsys) -> None:
    home = site(authority, tmp_path / "site", server.port)
    for known in ("", "south"):
        server.known = known
        _, found = examined(home, capsys)
        assert only(found, "study")[2] == "HF-811"


def test_a_closed_port_and_an_unknown_name_are_told(authority, tmp_path, capsys) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    home = site(authority, tmp_path / "site", port)
    assert only(examined(home, capsys)[1], "connection")[2] == "HF-408"
    data = home.keys
    keys = SiteKeys.load(data)
    request = read_request(make_request(keys, "north", "https://x.invalid", ["ehr"]))
    kit = make_kit(authority, request, url="https://x.invalid", node_id=7)
    install_kit(kit, home.study, keys, root_fingerprint=authority.fingerprint)
    level, seen, number = only(examined(home, capsys)[1], "connection")
    assert (level, number) == ("fail", "HF-408")
    assert "x.invalid: its name is not known" in seen


@pytest.mark.parametrize("by", ["settings", "environment"])
def test_through_a_proxy_with_a_password_and_not_without_it(
    authority, server, tmp_path, capsys, monkeypatch, by: str
) -> None:
    proxy = Proxy()
    home = site(authority, tmp_path / "site", server.port)

    def use(address: str) -> None:
        if by == "environment":
            monkeypatch.setenv("HTTPS_PROXY", address)
            return
        stores = (StoreChoice(path=tmp_path),)
        home.write_settings(JoinSettings(stores=stores, proxy=address))

    use(f"http://us:wr0ng@127.0.0.1:{proxy.port}")  # no word of a fingerprint
    _, found = examined(home, capsys)
    level, seen, number = only(found, "connection")
    assert (level, number) == ("fail", "HF-408")
    assert "does not let us through" in seen
    assert "wr0ng" not in json.dumps(found), "a password is not printed"
    use(f"http://us:secret@127.0.0.1:{proxy.port}")
    _, found = examined(home, capsys)
    assert only(found, "study")[0] == "pass"
    assert proxy.passed == [f"localhost:{server.port}"]
    assert "secret" not in json.dumps(found)
    warned = [one for one in found["proxy"] if one["level"] == "warn"]
    assert bool(warned) is (by == "environment"), "NO_PROXY does not exempt loopback"
    proxy.socket.close()


def test_open_keys_and_an_open_policy_are_told(authority, server, tmp_path, capsys) -> None:
    home = site(authority, tmp_path / "site", server.port)
    (home.keys / "tls.key").chmod(0o644)
    home.policy.chmod(0o666)
    home.set_state("paused")
    code, found = examined(home, capsys)
    assert only(found, "enrolment")[2] == "HF-802"
    assert found["policy"][-1]["level"] == "warn"
    assert only(found, "state")[:2] == ("warn", "paused")
    assert code == 9
    assert main(["doctor", "--site", str(home.path)]) == 9
    shown = capsys.readouterr().out
    assert f"do: Run: chmod 600 {home.keys / 'tls.key'}" in shown
