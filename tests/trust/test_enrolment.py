"""A request and a kit there and back, and everything that can be wrong with either."""

from __future__ import annotations

import dataclasses
import io
import json
import resource
import zipfile
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from healthfm_core.errors import TrustError
from healthfm_core.trust import archive, fingerprint
from healthfm_core.trust.authority import Authority
from healthfm_core.trust.certificates import now_utc
from healthfm_core.trust.kit import install_kit, installed, make_kit, read_kit, write_for_tls
from healthfm_core.trust.request import make_request, read_request
from healthfm_core.trust.site_keys import SiteKeys
from healthfm_core.trust.site_registry import Registry
from tests.trust.conftest import URL


def opened(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        return {name: file.read(name) for name in file.namelist()}


def changed(data: bytes, name: str, content: bytes) -> bytes:
    return archive.pack({**opened(data), name: content})


def kit_of(authority: Authority, request: bytes, **more: object) -> bytes:
    return make_kit(authority, read_request(request), url=URL, node_id=2**63 + 5, **more)


def test_a_request_says_who_asks_and_holds_no_private_key(keys, request_file):
    found = read_request(request_file)
    assert (found.site, found.url, found.modalities) == ("north", URL, ("ehr", "wearable"))
    assert found.fingerprints()["tls"] == fingerprint.of_key(keys.tls.public_key())
    assert b"PRIVATE" not in b"".join(opened(request_file).values())


def test_whoever_compared_one_key_has_compared_all_three(keys, request_file, tmp_path):
    """A request caught on its way: its tls key's part, and all that another's two keys can sign."""
    found = read_request(request_file)
    assert found.one_covers_all
    assert found.words == fingerprint.in_words(fingerprint.of_key(keys.tls.public_key()))
    others = dataclasses.replace(SiteKeys.create(tmp_path / "thief"), tls=keys.tls)
    mixed = make_request(others, "north", URL, ["ehr", "wearable"])
    caught, proofs = (json.loads(opened(r)["proofs.json"])["tls"] for r in (request_file, mixed))
    both = opened(mixed)["proofs.json"].decode().replace(proofs, caught)
    with pytest.raises(TrustError, match="HF-807"):
        read_request(changed(mixed, "proofs.json", both.encode()))


def test_a_request_whose_tls_key_did_not_sign_says_so(request_file):
    """As 0.8 wrote them; a renewal is compared with all keys on record, and may be one."""
    proofs = json.loads(opened(request_file)["proofs.json"])
    del proofs["tls"]
    before = changed(request_file, "proofs.json", json.dumps(proofs).encode())
    assert not read_request(before).one_covers_all


def test_a_kit_is_installed_by_the_words_that_were_told(authority, keys, request_file, tmp_path):
    data, words = kit_of(authority, request_file), authority.words
    wrong = " ".join([*words.split()[:9], "zoo" if not words.endswith("zoo") else "zone"])
    with pytest.raises(TrustError, match="HF-809"):
        install_kit(data, tmp_path / "study", keys, root_fingerprint=wrong)
    assert installed(tmp_path / "study") is None
    install_kit(data, tmp_path / "study", keys, root_fingerprint=words.replace(" ", "-"))
    assert installed(tmp_path / "study").root_words == words


def test_a_kit_is_installed_by_the_fingerprint_that_was_told(
    authority, keys, request_file, tmp_path
):
    data = kit_of(authority, request_file)
    kit = install_kit(
        data, tmp_path / "study", keys, root_fingerprint=authority.fingerprint.lower()
    )
    assert (kit.study, kit.site, kit.url, kit.node_id) == ("heart", "north", URL, 2**63 + 5)
    assert kit.signer_fingerprint == fingerprint.of_key(authority.signer.public_key())
    assert installed(tmp_path / "study") == kit
    roots, certificate = write_for_tls(kit, tmp_path / "study")
    assert roots.read_bytes() == authority.roots_pem()
    assert certificate.read_bytes().startswith(b"-----BEGIN CERTIFICATE")


@pytest.fixture
def full_disk():
    """A disk that takes no byte more, while it is entered."""

    @contextmanager
    def full():
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return full


def test_a_site_with_a_full_disk_still_connects(authority, keys, request_file, tmp_path, full_disk):
    """Else the coordinator hears of a site that is silent, not of HF-507."""
    folder = tmp_path / "study"
    data = kit_of(authority, request_file)
    kit = install_kit(data, folder, keys, root_fingerprint=authority.fingerprint)
    before = write_for_tls(kit, folder)
    before[0].write_bytes(b"of an older kit")
    with full_disk(), pytest.raises(OSError, match="large"):
        write_for_tls(kit, folder)
    assert not [path for path in folder.iterdir() if "partial" in path.name]
    write_for_tls(kit, folder)
    with full_disk():
        assert write_for_tls(kit, folder) == before
    assert before[0].read_bytes() == authority.roots_pem()


def test_without_the_fingerprint_nothing_is_installed(authority, keys, request_file, tmp_path):
    data = kit_of(authority, request_file)
    for told, code in ((None, "HF-809"), ("AB:CD", "HF-809"), ("0" * 64, "HF-809")):
        with pytest.raises(TrustError, match=code):
            install_kit(data, tmp_path / "study", keys, root_fingerprint=told)
    assert installed(tmp_path / "study") is None


def test_a_kit_of_a_new_root_is_believed_by_the_old_one(authority, keys, request_file, tmp_path):
    folder = tmp_path / "study"
    first = kit_of(authority, request_file)
    install_kit(first, folder, keys, root_fingerprint=authority.fingerprint)
    authority.rotate()
    authority.rotate()
    kit = install_kit(kit_of(authority, request_file), folder, keys)
    assert kit.root_fingerprint == authority.fingerprint
    assert len(kit.older) == 2


def test_a_kit_of_another_studys_root_does_not_replace_the_installed_one(
    authority, keys, request_file, tmp_path
):
    folder = tmp_path / "study"
    install_kit(
        kit_of(authority, request_file), folder, keys, root_fingerprint=authority.fingerprint
    )
    other = Authority.create(tmp_path / "other", "heart")
    other.rotate()
    with pytest.raises(TrustError, match="HF-803"):
        install_kit(kit_of(other, request_file), folder, keys)
    assert installed(folder).root_fingerprint == authority.fingerprint


def test_a_kit_for_other_keys_is_refused(authority, request_file, tmp_path):
    others = SiteKeys.create(tmp_path / "others")
    with pytest.raises(TrustError, match=r"HF-808.*other keys"):
        install_kit(
            kit_of(authority, request_file),
            tmp_path / "study",
            others,
            root_fingerprint=authority.fingerprint,
        )


@pytest.mark.parametrize(
    "name",
    ["kit.json", "root.pem", "older-roots.pem", "cross.pem", "site.pem", "signer.pem", "kit.sig"],
)
def test_a_kit_altered_in_any_file_is_refused(authority, keys, tmp_path, request_file, name):
    authority.rotate()
    data = kit_of(authority, request_file)
    other = Authority.create(tmp_path / "other", "heart")
    other.rotate()
    theirs = opened(kit_of(other, request_file))[name]
    content = opened(data)[name].replace(b"8443", b"8444") if name == "kit.json" else theirs
    assert content != opened(data)[name]
    with pytest.raises(TrustError, match=r"HF-80[38]"):
        read_kit(changed(data, name, content))


def test_a_kit_is_not_signed_by_another_certificate_of_the_root(authority, keys, request_file):
    """A site's own certificate comes from the root too: it must not sign kits."""
    data = kit_of(authority, request_file)
    with pytest.raises(TrustError, match="HF-808"):
        read_kit(changed(data, "signer.pem", opened(data)["site.pem"]))


def test_a_kit_is_refused_after_its_certificates_time_and_before_it(authority, request_file):
    data = kit_of(authority, request_file, now=now_utc() - timedelta(days=400))
    with pytest.raises(TrustError, match=r"HF-80[34].*(expired on|valid from)"):
        read_kit(data)
    with pytest.raises(TrustError, match=r"HF-804.*valid from"):
        read_kit(kit_of(authority, request_file), now=now_utc() - timedelta(days=1))


def test_an_expired_kit_that_is_installed_can_still_be_read(
    authority, keys, request_file, tmp_path
):
    then = now_utc() - timedelta(days=300)
    old = Authority.create(tmp_path / "old", "heart", now=then)
    data = kit_of(old, request_file, now=then, days=100)
    install_kit(data, tmp_path / "study", keys, root_fingerprint=old.fingerprint, now=then)
    assert installed(tmp_path / "study").site == "north"


@pytest.mark.parametrize("name", ["request.json", "tls.csr", "node.pub", "signing.pub"])
def test_a_request_with_a_file_of_another_request_is_refused(tmp_path, request_file, name):
    other = make_request(SiteKeys.create(tmp_path / "others"), "south", URL, ["ehr"])
    with pytest.raises(TrustError, match="HF-807"):
        read_request(changed(request_file, name, opened(other)[name]))


def test_anothers_public_node_key_cannot_be_claimed(tmp_path, keys):
    """All of the request is one's own but the node key: the proof by that key is missing."""
    others = SiteKeys.create(tmp_path / "others")
    mixed = SiteKeys(keys.tls, others.node, keys.signing)
    data = make_request(mixed, "north", URL, ["ehr"])
    proofs = json.loads(opened(data)["proofs.json"])
    own = json.loads(opened(make_request(keys, "north", URL, ["ehr"]))["proofs.json"])
    forged = json.dumps({**proofs, "node": own["node"]}).encode()
    with pytest.raises(TrustError, match="HF-807"):
        read_request(changed(data, "proofs.json", forged))


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"site": "../../etc"}, "HF-810"),
        ({"url": "http://study.example.org"}, "HF-810"),
        ({"url": "https://a@b"}, "HF-810"),
        ({"format": 2}, "HF-806"),
        ({"modalities": ["imaging"]}, "HF-806"),
        ({"made": "yesterday"}, "HF-806"),
        ({"site": "south"}, "HF-807"),
    ],
)
def test_a_request_with_other_words_is_refused(request_file, change, code):
    about = json.loads(opened(request_file)["request.json"])
    with pytest.raises(TrustError, match=code):
        read_request(changed(request_file, "request.json", json.dumps(about | change).encode()))


def test_keys_are_made_once_and_kept(tmp_path):
    first = SiteKeys.create(tmp_path / "keys")
    again = SiteKeys.create(tmp_path / "keys")
    assert first.node_public() == again.node_public()
    for name in ("tls.key", "node.key", "signing.key"):
        assert (tmp_path / "keys" / name).stat().st_mode & 0o777 == 0o600
    data = (tmp_path / "keys" / "node.key").read_bytes()
    assert data.startswith(b"-----BEGIN OPENSSH PRIVATE KEY-----")
    assert load_ssh_private_key(data, None).curve.name == "secp384r1"
    assert first.node_public().startswith(b"ecdsa-sha2-nistp384 ")


def test_an_interrupted_start_is_gone_on_with(tmp_path):
    first = SiteKeys.create(tmp_path / "keys")
    (tmp_path / "keys" / "signing.key").unlink()
    again = SiteKeys.create(tmp_path / "keys")
    assert first.node_public() == again.node_public()
    assert first.signing_public() != again.signing_public()


@pytest.mark.parametrize("name", ["tls.key", "node.key", "signing.key"])
def test_a_key_that_cannot_be_used_is_named_and_kept(tmp_path, name):
    SiteKeys.create(tmp_path / "keys")
    path = tmp_path / "keys" / name
    path.write_bytes(b"damaged")
    with pytest.raises(TrustError, match=f"HF-802.*{name}"):
        SiteKeys.create(tmp_path / "keys")
    assert path.read_bytes() == b"damaged"


NAMES = ("a.json", "b.pem")


def zipped(*entries: tuple[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in entries:
            file.writestr(name, data)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PK",
        zipped(("a.json", b"")),
        zipped(("a.json", b""), ("b.pem", b""), ("c", b"")),
        zipped(("../a.json", b""), ("b.pem", b"")),
        zipped(("/a.json", b""), ("b.pem", b"")),
        zipped(("a.json", b""), ("b.pem", bytes(10_000_000))),
        bytes(300_000),
    ],
    ids=["empty", "no zip", "missing", "more", "upwards", "absolute", "bomb", "large"],
)
def test_an_archive_that_is_not_as_written_is_refused(data):
    with pytest.raises(TrustError, match="HF-806"):
        archive.unpack(data, NAMES, "kit")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_stands_twice_is_refused():
    data = zipped(("a.json", b"1"), ("a.json", b"2"), ("b.pem", b""))
    with pytest.raises(TrustError, match="HF-806"):
        archive.unpack(data, NAMES, "kit")


def test_a_file_that_says_it_is_smaller_than_it_is_is_refused():
    data = bytearray(zipped(("a.json", b"1"), ("b.pem", bytes(300_000))))
    true, said = (300_000).to_bytes(4, "little"), (10).to_bytes(4, "little")
    assert true in data
    with pytest.raises(TrustError, match="HF-806"):
        archive.unpack(bytes(data).replace(true, said), NAMES, "kit")


@given(st.dictionaries(st.sampled_from(NAMES), st.binary(max_size=200), min_size=2))
def test_what_is_packed_is_unpacked(files):
    assert archive.unpack(archive.pack(files), NAMES, "kit") == files
    assert archive.pack(files) == archive.pack(dict(reversed(files.items())))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
@given(st.data())
def test_no_damage_to_a_request_gets_through_or_raises_anything_else(request_file, data):
    """One byte changed, a piece cut out, or a piece said twice."""
    at = data.draw(st.integers(0, len(request_file) - 1))
    kind = data.draw(st.sampled_from(["flip", "cut", "double", "end"]))
    span = data.draw(st.integers(1, 60))
    match kind:
        case "flip":
            bad = bytearray(request_file)
            bad[at] ^= data.draw(st.integers(1, 255))
            spoilt = bytes(bad)
        case "cut":
            spoilt = request_file[:at] + request_file[at + span :]
        case "double":
            spoilt = request_file[: at + span] + request_file[at:]
        case _:
            spoilt = request_file[:at]
    assert outcome(spoilt) in [806, 807, 810, read_request(request_file)]


def outcome(data: bytes) -> object:
    try:
        return read_request(data)
    except TrustError as error:
        return error.number


def test_a_site_is_on_the_list_once(authority, keys, request_file, tmp_path):
    registry = Registry(tmp_path / "sites.json")
    request = read_request(request_file)
    assert registry.sites() == {}
    registry.admit(request, 7)
    with pytest.raises(TrustError, match="HF-812"):
        registry.admit(request, 8)
    with pytest.raises(TrustError, match="HF-812"):
        registry.admit(request, 7, name="south")
    assert registry.site("north").node_id == 7
    assert registry.revoke("north").revoked
    assert registry.renew(request, 9).node_id == 9
    assert Registry(tmp_path / "sites.json").site("north").revoked == ""
    for act in (registry.site, registry.revoke):
        with pytest.raises(TrustError, match="HF-811"):
            act("nowhere")
    with pytest.raises(TrustError, match="HF-811"):
        authority.revoke("nowhere")


def test_a_damaged_list_is_named(tmp_path: Path):
    (tmp_path / "sites.json").write_text("[{}]")
    with pytest.raises(TrustError, match="HF-802"):
        Registry(tmp_path / "sites.json").sites()
