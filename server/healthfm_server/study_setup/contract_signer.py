"""What a deployment adds to a run: its contracts are signed, its replies come from known nodes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, Self

from healthfm_core.config.run import RunConfig
from healthfm_core.errors import TrustError
from healthfm_core.federation.contracting import (
    ORDER_SIGNATURE,
    SIGNATURE,
    sign_order,
    sign_statistics,
    to_fields,
)
from healthfm_core.federation.secure.contracted_sums import sign_message
from healthfm_core.trust import files
from healthfm_core.trust.contract import ContractTerms, StudySigner
from healthfm_core.trust.site_registry import REGISTRY_FILE, Registry
from healthfm_server.deploy.study_folder import SETTINGS, StudyFolder
from healthfm_server.study_setup.registered_sites import RegisteredSite, not_its_node

AUTHORITY: Final = "authority"


@dataclass(frozen=True)
class ContractSigner:
    """Signs a study's contracts and checks who answers; in a simulation it does neither.

    Attributes:
        signer: Signs contracts, None in a simulation.
        registry: The admitted sites, None in a simulation.
    """

    signer: StudySigner | None = None
    registry: Registry | None = None

    @classmethod
    def of(cls, folder: Path, run: str) -> Self:
        """Return the signer of the study in `folder`, as ``healthfm-server init`` made it.

        Args:
            folder: The study's.
            run: What the coordinator's people call the run whose contracts it signs.

        Raises:
            TrustError: The study's name or its signing key cannot be used (HF-802).
            ConfigError: Its ``study.yaml`` cannot be used (HF-102).
        """
        path = folder / AUTHORITY / "study.json"
        try:
            study = str(json.loads(files.read(path, "the study's name"))["study"])
        except (ValueError, KeyError, TypeError) as error:
            raise files.unusable(path, "the study's name is damaged") from error
        signer = StudySigner.load(study, folder / AUTHORITY / "signer.key")
        stated = {"run": run}
        if (folder / SETTINGS).is_file():
            stated |= StudyFolder.open(folder).settings.statement.stated()
        return cls(replace(signer, statement=stated), Registry(folder / REGISTRY_FILE))

    def sign(self, terms: Callable[[], ContractTerms], config: RunConfig) -> dict[str, str]:
        """Return the fields of a new contract, for a message; none in a simulation.

        Args:
            terms: Gives what it says.
            config: Says how long it lasts.
        """
        if self.signer is None:
            return {}
        lasts = timedelta(days=config.federation.contract_days)
        return to_fields(self.signer.sign(terms(), lasts))

    def to_ask(self, record: dict[str, Any]) -> dict[str, Any]:
        """Return the record of a statistics order with its signature; as it is in a simulation."""
        if self.signer is None:
            return record
        return {**record, ORDER_SIGNATURE: sign_statistics(self.signer, record)}

    def of_sum(self, site: str, kind: str, record: dict[str, Any]) -> dict[str, Any]:
        """Return the record of a message of a sum with its signature; as it is in a simulation.

        Args:
            site: Whom it is for.
            kind: The message's name.
            record: What it says.
        """
        if self.signer is None:
            return record
        return {**record, SIGNATURE: sign_message(self.signer, site, kind, record)}

    def to_train(
        self, record: dict[str, str], digests: Mapping[str, str], site: str, lasts_s: float
    ) -> dict[str, str]:
        """Return the record of a new training order, signed; as it is in a simulation.

        Args:
            record: The order and its study.
            digests: SHA-256 of each piece of parameters that travels with it, in hex.
            site: Whose order it is: the only one that takes it, and once.
            lasts_s: Seconds until nobody waits for the answer.
        """
        if self.signer is None:
            return record
        lasts = timedelta(seconds=lasts_s)
        return sign_order(self.signer, record, digests, site=site, lasts=lasts)

    def name_of(self, node: int) -> str:
        """Return the site whose node that is, for a person to read; its number in a simulation."""
        known = {} if self.registry is None else self.registry.sites()
        names = (name for name, site in known.items() if site.node_id == node)
        return next(names, f"node {node}")

    def check(self, site: RegisteredSite) -> RegisteredSite:
        """Return `site` where it may answer from its node.

        Raises:
            TrustError: It is not registered or was revoked, or says that it speaks for other sites
                (HF-811), answers from another node than its own (HF-820), or says that it has more
                people than was agreed (HF-826).
        """
        if self.registry is None:
            return site
        known = self.registry.site(site.name)
        if known.revoked:
            raise TrustError(
                811,
                where=f"site {site.name}",
                seen="a site that was revoked",
                wanted="a registered site",
                do="Sign a new request of its, if it is to take part again",
            )
        if known.node_id != site.node_id:
            raise not_its_node(site.name, "a node that is registered for another site")
        if site.sites:
            raise TrustError(
                811,
                where=f"site {site.name}",
                seen=f"it says that it speaks for {site.sites} sites",
                wanted="a site that speaks for itself: no study admits regional coordinators yet",
            )
        if 0 < known.most_subjects < site.n_subjects:
            raise TrustError(
                826,
                where=f"site {site.name}",
                seen=f"{site.n_subjects} training subjects",
                wanted=f"at most the {known.most_subjects} that were agreed when it was admitted",
            )
        return site
