"""A study's folder and enrolled sites, as a deployment has them, over the small model's stores."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from flwr.app import Context, Message, RecordDict

import tests.quiet_flower
from healthfm_client.app import make_app as make_client_app
from healthfm_client.local_work import LocalWork
from healthfm_client.site.site_home import SiteHome
from healthfm_core.config.privacy import PrivacyConfig
from healthfm_core.trust.authority import Authority
from healthfm_core.trust.kit import install_kit, make_kit
from healthfm_core.trust.request import make_request, read_request
from healthfm_core.trust.site_keys import SiteKeys
from healthfm_core.trust.site_registry import Registry
from healthfm_server.app import make_app as make_server_app
from healthfm_server.run_folder.run_store import RunStore
from healthfm_simulations.engine import NodeSpec
from healthfm_simulations.engine.inprocess import InProcessGrid, copied
from tests import three_numbers as small
from tests.virtual_clock import virtual_clock

assert tests.quiet_flower

URL = "https://study.example.org:8443"


@dataclass(frozen=True)
class Enrolled(NodeSpec):
    """A site whose node is configured by its folder."""

    home: Path = Path()

    def node_config(self) -> dict[str, str | int | float | bool]:
        """As a real node's, with its folder."""
        return {**super().node_config(), "home": str(self.home)}


def study(folder: Path, name: str = "heart") -> Authority:
    """Make a study's folder and return its authority."""
    return Authority.create(folder / "authority", name)


def enrol(authority: Authority, spec: NodeSpec, node_id: int, **policy: Any) -> Enrolled:
    """Enrol a site: keys, request, kit and policy, all in its own folder."""
    home = SiteHome(Path(spec.stores[0][0]).parent / f"{spec.name}-home")
    keys = SiteKeys.create(home.keys)
    home.begin(spec.name, URL, ["ehr"])
    request = read_request(make_request(keys, spec.name, URL, ["ehr"]))
    kit = make_kit(authority, request, url=URL, node_id=node_id)
    install_kit(kit, home.study, keys, root_fingerprint=authority.fingerprint)
    Registry(authority.folder.parent / "sites.json").admit(request, node_id)
    home.policy.write_text(yaml.safe_dump(policy))
    return Enrolled(spec.name, spec.stores, home=home.path)


def three(folder: Path, **policy: Any) -> tuple[Path, list[Enrolled]]:
    """Return a study's folder and its three enrolled sites, nodes 1 to 3."""
    authority = study(folder / "study")
    sites = [
        enrol(authority, spec, number, **policy)
        for number, spec in enumerate(small.three_sites(folder), start=1)
    ]
    return folder / "study", sites


class Wire(InProcessGrid):
    """Real apps; every message of both directions is kept, and a test may change what arrives."""

    def __init__(self, nodes: list[Enrolled], work: LocalWork | None = None) -> None:
        super().__init__(make_client_app(work or small.ClientWork()), nodes)
        self.sent: list[Message] = []
        self.back: list[Message] = []

    def change(self, message: Message) -> None:
        """Change a message before a site gets it; here it stays as it is."""

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Keep what is sent."""
        messages = list(messages)
        self.sent += messages
        return super().push_messages(messages)

    def _deliver(self, message: Message) -> Message:
        message.content = copied(message.content)
        self.change(message)
        reply = super()._deliver(message)
        self.back.append(reply)
        return reply


def run(
    grid: InProcessGrid,
    study: Path | None,
    folder: Path,
    privacy: PrivacyConfig | None = None,
    *,
    dry_run: bool = False,
    **federation: Any,
) -> RunStore:
    """Run the real server app over `grid`, signing for the study, and return the run folder."""
    config = small.config(**{"deadline_s": 60.0, "keep_checkpoints": 9, **federation})
    config = config.model_copy(update={"privacy": privacy or config.privacy})
    nodes = len(list(grid.get_node_ids()))
    request: dict[str, Any] = {"config": config.model_dump_json(), "folder": str(folder)}
    request |= {"nodes": nodes, "resume": (folder / "config.json").exists()}
    if study is not None:
        request["study"] = str(study)
    if dry_run:
        request["dry_run"] = True
    app = make_server_app(small.ServerWork())
    with virtual_clock():
        app(grid, Context(1, 0, {}, RecordDict(), request))
    return RunStore(folder, keep=9)
