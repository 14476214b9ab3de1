"""The site as one message finds it: its name, stores and policy, and its folder if it has one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Final, Self

from flwr.app import ArrayRecord, Context

from healthfm_client.consent.run_facts import run_facts
from healthfm_client.local_work import StoreSpec
from healthfm_client.privacy_accounting.site_privacy import SitePrivacy
from healthfm_client.site import computer_limits
from healthfm_client.site.site_home import SiteHome
from healthfm_client.site.site_policy import SitePolicy
from healthfm_core.errors import ConfigError, TrustError
from healthfm_core.federation import contracting
from healthfm_core.trust.certificates import now_utc
from healthfm_core.trust.contract import Contract, open_contract
from healthfm_core.trust.kit import Kit

HOME_KEY: Final = "home"
"""Key of the node configuration: the folder of an enrolled site. A simulated site has none."""
STATE_KEY: Final = "state"
"""Key of the node configuration: where a simulated site keeps what outlives a round."""


@dataclass(frozen=True)
class SiteNode:
    """The site.

    Attributes:
        name: Its name: the kit's where it is enrolled.
        node_id: Flower's number of the node it answers from.
        stores: What it takes part with.
        policy: What it permits.
        home: Its folder, None in a simulation, which needs no contract and keeps no log.
        kit: What the study gave it, None in a simulation.
        state: Where a simulated site keeps what outlives a round.
    """

    name: str
    node_id: int
    stores: tuple[StoreSpec, ...]
    policy: SitePolicy
    home: SiteHome | None = None
    kit: Kit | None = None
    state: Path | None = None

    @classmethod
    def of(cls, context: Context) -> Self:
        """Return the site of `context`.

        Raises:
            HealthFMError: Its policy file is unusable (HF-1xx) or permits nothing (HF-501); it is
                not enrolled (HF-830) or runs on another's node (HF-820); it is stopped (HF-505,
                HF-508) or it is outside its hours (HF-504).
        """
        config = context.node_config
        if HOME_KEY in config:
            return cls._enrolled(SiteHome(Path(str(config[HOME_KEY]))), context)
        policy = SitePolicy.read(Path(str(config["policy"]))) if "policy" in config else None
        policy = policy or SitePolicy(privacy=SitePrivacy(tuning_metrics=True))
        return cls(
            str(config["site"]),
            context.node_id,
            permitted_stores(str(config["stores"]), policy),
            policy,
            state=Path(str(config[STATE_KEY])) if STATE_KEY in config else None,
        )

    @classmethod
    def _enrolled(cls, home: SiteHome, context: Context) -> Self:
        home.check_open()
        kit, policy = home.kit(), SitePolicy.read(home.policy)
        if kit.node_id != context.node_id:
            raise _other_node(kit.site)
        policy.check_hours(now_utc())
        policy.check_study(kit.study, kit.signer_fingerprint)
        computer_limits.apply(policy.resources)
        stores = permitted_stores(str(context.node_config["stores"]), policy)
        return cls(kit.site, context.node_id, stores, policy, home, kit)

    @property
    def signed_study(self) -> str:
        """The study of the site's kit and its signer: its runs share one ε; empty without a kit."""
        return "" if self.kit is None else f"{self.kit.study} {self.kit.signer_fingerprint}"

    def state_folder(self) -> Path:
        """Return the folder of what outlives a round; it may not be there yet.

        Raises:
            ConfigError: The node has none (HF-102).
        """
        folder = self.state if self.home is None else self.home.state_folder
        if folder is None:
            raise ConfigError(
                102,
                where=f"node configuration, {STATE_KEY}",
                seen="no folder",
                wanted="control variates and residuals are kept at the site between rounds",
                do=f"Name a folder of the site's own as {STATE_KEY}",
            )
        return folder

    def accept_contract(
        self, order: Mapping[str, Any], now: datetime | None = None
    ) -> Contract | None:
        """Return the contract that came with an order, once it holds and the policy permits it.

        Raises:
            TrustError: It does not hold (HF-813 to HF-819).
            PolicyError: The policy does not permit it (HF-501), or a person has not approved it
                (HF-503) or denied it (HF-506).
        """
        contract = self._permitted(order, now)
        if contract is not None and self.home is not None and self.policy.require_approval:
            facts = partial(run_facts, contract, self.policy, self.stores, self.kit)
            self.home.approvals().check(contract, facts, now)
        return contract

    def would_begin(self, order: Mapping[str, Any], now: datetime | None = None) -> bool:
        """Return whether a run of an order's contract would begin here without a person's answer.

        Nobody is asked, and nothing is noted but that the contract was used.

        Raises:
            TrustError: The contract does not hold (HF-813 to HF-819).
            PolicyError: The policy does not permit it (HF-501).
        """
        contract = self._permitted(order, now)
        if contract is None or self.home is None:
            return True
        contracting.check_dry_run(contract)
        approvals = self.home.approvals()
        return not self.policy.require_approval or approvals.standing_for(contract) is not None

    def _permitted(self, order: Mapping[str, Any], now: datetime | None) -> Contract | None:
        if self.home is None or self.kit is None:
            return None
        contract = open_contract(
            contracting.from_fields(order),
            study=self.kit.study,
            signer=self.kit.signer_key,
            used=self.home.used_contracts(),
            now=now,
        )
        self.policy.check_terms(contract.terms)
        return contract

    def check_question(self, order: Mapping[str, Any]) -> None:
        """Refuse a statistics order that the study's signer did not sign.

        Raises:
            TrustError: It did not (HF-814).
        """
        if self.kit is not None:
            contracting.check_statistics_signature(order, self.kit.signer_key)

    def accept_order(self, order: Mapping[str, Any], arrays: ArrayRecord) -> None:
        """Refuse an order that the study's signer did not sign for this site, once, and for now.

        Raises:
            TrustError: It was altered (HF-814), is another site's (HF-823), was taken before
                (HF-824) or is too late (HF-825).
        """
        if self.home is None or self.kit is None:
            return
        digests = {name: hashlib.sha256(a.data).hexdigest() for name, a in arrays.items()}
        key, used = self.kit.signer_key, self.home.used_orders()
        contracting.accept_order(order, digests, key, site=self.name, used=used)


def permitted_stores(text: str, policy: SitePolicy) -> tuple[StoreSpec, ...]:
    """Return the stores of a node's configuration, with what of each the policy permits.

    Raises:
        PolicyError: Nothing of one (HF-501).
    """
    return tuple(
        StoreSpec(Path(raw["path"]), policy.permitted(raw.get("modalities")), raw.get("ids", ""))
        for raw in json.loads(text)
    )


def _other_node(site: str) -> TrustError:
    return TrustError(
        820,
        where=f"site {site}",
        seen="a node of another number than the kit's",
        wanted="the site runs with the node key that it enrolled",
        do="Start it with healthfm-client join, which uses the right key",
    )
