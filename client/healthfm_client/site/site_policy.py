"""What this site permits, whatever a coordinator asks: read from the site's own ``site.yaml``."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Final, Literal, Self

import yaml
from pydantic import AfterValidator, Field, ValidationError, model_validator

from healthfm_client.privacy_accounting.site_privacy import SitePrivacy
from healthfm_client.site.computer_limits import ComputerLimits
from healthfm_client.site.sum_rules import SumRules
from healthfm_client.site.working_hours import WorkingHours, Zone, is_working_time
from healthfm_core.config import deprecated, renamed
from healthfm_core.config.base import Schema
from healthfm_core.config.data import Modality
from healthfm_core.config.privacy_mechanisms import hides_each_person
from healthfm_core.config.tokens import TokensConfig
from healthfm_core.errors import ConfigError, PolicyError
from healthfm_core.federation.contracting import METRICS_WANTED
from healthfm_core.federation.protocol import Study
from healthfm_core.modalities.registry import modality_names
from healthfm_core.notices.notice_settings import NoticeSettings
from healthfm_core.trust import fingerprint
from healthfm_core.trust.contract import ContractTerms

TOLD_BY_A_PERSON: Final = ("own_model/*", "gain/*")
"""Patterns of metrics that leave when a person here tells them, and never because a run asks."""


def _a_fingerprint(text: str) -> str:
    if wrong := fingerprint.fault(text):
        raise ValueError(wrong)
    return text


Fingerprint = Annotated[str, AfterValidator(_a_fingerprint)]

EXAMPLE: Final = Path(__file__).with_name("site.example.yaml")
"""What ``enroll`` gives a new site to adapt."""


class SitePolicy(Schema):
    """The site's own rules; the defaults permit what a simulation needs.

    A refusal is a `PolicyError`, and the refusal is all the coordinator gets to see.
    """

    modalities: tuple[Modality, ...] = Field(
        default_factory=lambda: tuple(sorted(modality_names())),
        description="what may be used; the rest is as if absent",
    )
    min_cohort: int = Field(
        1, ge=1, description="fewest training subjects the site takes part with"
    )
    k_min: int = Field(
        1, ge=1, description="no count under it leaves, and no code that fewer subjects have"
    )
    metrics: tuple[str, ...] = Field(
        (*METRICS_WANTED, *TOLD_BY_A_PERSON), description="patterns of metrics that may leave"
    )
    counts: tuple[str, ...] = Field(
        ("*_subjects",), description="patterns of metrics that are counts of people"
    )

    studies: tuple[str, ...] = Field(
        (), description="studies taken part in; none named: the one of the installed kit"
    )
    signer: Fingerprint | None = Field(
        None, description="fingerprint of the key whose contracts are taken, where it is pinned"
    )
    peers: dict[str, Fingerprint] = Field(
        {},
        description="the sites whose parts may be added up with this one's, by the fingerprint of "
        "their signing key; none named: each site's key is believed when it is first seen, and "
        "neither shared noise nor the privacy floor 'secure_aggregation' can be relied on",
    )
    sums: SumRules = Field(SumRules(), description="what a sum over sites must be")
    privacy_floor: tuple[Literal["differential_privacy", "secure_aggregation"], ...] = Field(
        (),
        description="what a run's contract must promise: 'differential_privacy': noise that hides "
        "each person, added at every site, of at most privacy.epsilon and privacy.delta; "
        "'secure_aggregation': the coordinator sees only sums",
    )
    require_approval: bool = Field(
        False, description="a person approves each run before anything is computed for it"
    )
    timezone: Zone = Field("UTC", description="of the hours")
    hours: tuple[WorkingHours, ...] = Field((), description="when the site works; none: always")
    resources: ComputerLimits = Field(
        ComputerLimits(), description="how much of its computer it lends"
    )
    privacy: SitePrivacy = SitePrivacy()
    notices: NoticeSettings = Field(
        NoticeSettings(), description="how the site's people are told of what happens"
    )

    @model_validator(mode="after")
    def _the_floor_names_its_numbers(self) -> Self:
        written = {"epsilon", "delta"} <= self.privacy.model_fields_set
        if "differential_privacy" in self.privacy_floor and not written:
            raise ValueError(
                "privacy_floor: differential_privacy needs privacy.epsilon and privacy.delta "
                "written out: the largest ε and δ that a study may cost each person here"
            )
        return self

    @classmethod
    def read(cls, path: Path) -> SitePolicy:
        """Return the policy in a YAML file.

        Raises:
            ConfigError: The file is missing (HF-104) or not a policy (HF-101, HF-102).
        """
        if not path.is_file():
            raise ConfigError(
                104,
                where=path.name,
                seen="there is no such file",
                wanted="the site's policy",
                do="Run healthfm-client enroll again, which writes one, and adapt it",
            )
        try:
            values = yaml.safe_load(path.read_text("utf-8")) or {}
            if isinstance(values, dict):
                values = deprecated.under_new_names(values, deprecated.SITE, path.name)
                renamed.SITE.refuse(values, file=path.name)
            policy = cls.model_validate(values)
        except (yaml.YAMLError, ValidationError) as error:
            raise _not_a_policy(path, error) from error
        privacy = policy.privacy.with_ledger_in(path.resolve().parent)
        return policy.model_copy(update={"privacy": privacy})

    def permitted(self, modalities: Collection[Modality] | None) -> tuple[Modality, ...]:
        """Return which of `modalities` (None: all) may be used.

        Raises:
            PolicyError: None of them (HF-501).
        """
        wanted = self.modalities if modalities is None else modalities
        left = tuple(m for m in self.modalities if m in wanted)
        if not left:
            raise _refusal("modalities", "no modality asked for is permitted")
        return left

    def raise_threshold(self, tokens: TokensConfig) -> TokensConfig:
        """Return `tokens` with the site's k where it is the stricter one."""
        return tokens.model_copy(update={"k_min": max(tokens.k_min, self.k_min)})

    def least_people(self, study: Study) -> int:
        """Return of how many held-out people something may be told, at least."""
        k_min = self.raise_threshold(study.config.tokens).k_min
        return max(k_min, study.config.evaluation.k_subgroup)

    def check_cohort(self, n_subjects: int) -> None:
        """Refuse to take part with too few people.

        Raises:
            PolicyError: Fewer than `min_cohort` or `k_min` (HF-501); their number is not said.
        """
        if n_subjects < max(self.min_cohort, self.k_min):
            raise _refusal("min_cohort", "the site has too few training subjects to take part")

    def check_hours(self, now: datetime) -> None:
        """Refuse outside the site's hours.

        Raises:
            PolicyError: It is outside them (HF-504).
        """
        if not is_working_time(self.hours, self.timezone, now):
            raise PolicyError(
                504,
                where="site policy, hours",
                seen="it is outside the hours in which this site works",
            )

    def check_study(self, study: str, signer: str) -> None:
        """Refuse a study or a signer that is not on the list.

        Raises:
            PolicyError: It is not (HF-501).
        """
        if self.studies and study not in self.studies:
            raise _refusal("studies", "a study that is not on the list")
        if self.signer is not None and not fingerprint.same(self.signer, signer):
            raise _refusal("signer", "a signer that is not the one on the list")

    def check_terms(self, terms: ContractTerms) -> None:
        """Refuse a run that protects people less than the site wants.

        Raises:
            PolicyError: It does (HF-501).
        """
        if "differential_privacy" in self.privacy_floor:
            self.privacy.check_promise(terms.privacy)
        self.privacy.check_noise(hides_each_person(terms.privacy) or terms.noise_is_shared)
        if "secure_aggregation" in self.privacy_floor and not terms.sums_only:
            raise _refusal("privacy_floor", "a run in which the coordinator sees each site's part")
        if terms.sums_only and terms.min_sites < self.sums.min_sites:
            raise _refusal("sums.min_sites", f"a run whose sums {terms.min_sites} sites open")
        relied_on = "secure_aggregation" in self.privacy_floor or terms.noise_is_shared
        if terms.sums_only and relied_on and not self.peers:
            raise _refusal("peers", "no list of sites: invented ones would add no noise, hide none")

    def metrics_to_send(
        self, metrics: Mapping[str, float], wanted: Collection[str] = ("*",)
    ) -> dict[str, float]:
        """Return those of `metrics` that are on the list and wanted, no counts under `k_min`."""
        return {
            name: float(value)
            for name, value in sorted(metrics.items())
            if _matches(name, self.metrics)
            and _matches(name, wanted)
            and not (_matches(name, self.counts) and 0 < value < self.k_min)
        }

    def groups_to_send(self, weights: Mapping[str, float]) -> dict[str, float]:
        """Return those of `weights` that are not counts under `k_min`; the others stay here."""
        return {g: float(w) for g, w in sorted(weights.items()) if w >= self.k_min}


def policy_permitting(modalities: Collection[str]) -> bytes:
    """Return the policy that a new site begins with.

    Args:
        modalities: What may be used, as the site enrolled; none: all, as in the example.
    """
    text = EXAMPLE.read_text("utf-8")
    if not modalities:
        return text.encode()
    line = f"modalities: [{', '.join(modality_names())}]\n"
    head, found, tail = text.partition(line)
    if not found:
        raise ValueError(f"{EXAMPLE.name} has no line {line!r}")
    chosen = [name for name in modality_names() if name in modalities]
    return f"{head}modalities: [{', '.join(chosen)}]\n{tail}".encode()


def not_enrolled(permitted: Collection[str], enrolled: Collection[str]) -> list[str]:
    """Return what a policy permits beyond what the site enrolled with; none where it named none."""
    return [name for name in permitted if name not in enrolled] if enrolled else []


def _matches(name: str, patterns: Collection[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _refusal(rule: str, seen: str) -> PolicyError:
    return PolicyError(501, where=f"site policy, {rule}", seen=seen)


def _not_a_policy(path: Path, error: yaml.YAMLError | ValidationError) -> ConfigError:
    number, where, seen = 102, path.name, "it is not YAML"
    if isinstance(error, ValidationError):
        first = error.errors(include_input=False, include_url=False)[0]
        number = 101 if first["type"] == "extra_forbidden" else 102
        where = f"{path.name}, {'.'.join(map(str, first['loc'])) or 'top level'}"
        seen = str(first["msg"]).removeprefix("Value error, ")
    return ConfigError(
        number,
        where=where,
        seen=seen,
        wanted="the keys that docs/privacy.md and the file itself name",
        do="Correct the line; site.example.yaml in the package explains each key",
    )
