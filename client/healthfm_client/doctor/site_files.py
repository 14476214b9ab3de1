"""The site's own files: keys, kit, certificate, policy, log; and its data by modality."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from healthfm_client.doctor.findings import DoctorFinding, failed, passed
from healthfm_client.runtime.certificate_renewal import renews_from
from healthfm_client.site.site_home import SiteHome
from healthfm_client.site.site_policy import SitePolicy, not_enrolled
from healthfm_client.site_store.description.facts import describe
from healthfm_client.site_store.quality.quality_file import last_report
from healthfm_client.site_store.shared_people import of_shared_people
from healthfm_core.data.store.joined_stores import join_stores
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.data.store.store_files import stores_below
from healthfm_core.errors import PolicyError
from healthfm_core.owner_only import closing_command, open_to_others
from healthfm_core.trust import fingerprint
from healthfm_core.trust.certificates import RENEWED_DAYS, check_valid_now, now_utc
from healthfm_core.trust.site_keys import SiteKeys

LATE_DAYS: Final = 7
"""How long a certificate may go without renewing itself before the doctor reports it."""


def enrolment(home: SiteHome) -> Iterator[DoctorFinding]:
    """Yield what is known of keys, kit and certificate.

    Raises:
        TrustError: A key, the kit or the certificate cannot be used (HF-8xx).
    """
    SiteKeys.load(home.keys)
    yield passed("keys", f"three private keys in {home.keys}, readable by their owner only")
    kit = home.kit()
    yield passed("kit", f"{kit.site} in the study {kit.study}, node {kit.node_id}, {kit.url}")
    for name, value in (("root", kit.root_fingerprint), ("signer", kit.signer_fingerprint)):
        yield passed(name, f"{fingerprint.in_words(value)} ({value})")
    check_valid_now(kit.certificate, where="certificate")
    until = kit.certificate.not_valid_after_utc
    left = (until - now_utc()).days
    seen = f"until {until:%Y-%m-%d}, {left} days"
    if left < RENEWED_DAYS - LATE_DAYS:
        do = "it renews itself while joined; else send the coordinator request.zip for a new kit"
        yield DoctorFinding("certificate", "warn", seen, do)
    else:
        yield passed("certificate", f"{seen}; renews itself from {renews_from(kit):%Y-%m-%d} on")


def log(home: SiteHome) -> Iterator[DoctorFinding]:
    """Yield whether the record of what left is whole.

    Raises:
        TrustError: It was changed (HF-822).
    """
    yield passed("log", f"{home.log().verify()} lines, none changed")


def policy(home: SiteHome) -> Iterator[DoctorFinding]:
    """Yield what the site permits.

    Raises:
        ConfigError: The policy cannot be used (HF-1xx).
    """
    rules = SitePolicy.read(home.policy)
    approval = "each run is approved by a person" if rules.require_approval else "runs need nobody"
    hours = "in its hours only" if rules.hours else "at any hour"
    floor = f"only runs that promise {', '.join(rules.privacy_floor)}"
    floor = floor if rules.privacy_floor else "no privacy floor"
    yield passed("policy", f"{', '.join(rules.modalities)}; {approval}; {floor}; {hours}")
    enrolment = home.enrolment()
    beyond = [] if enrolment is None else not_enrolled(rules.modalities, enrolment.modalities)
    if beyond:
        error = PolicyError(
            501,
            where="site.yaml, modalities",
            seen=f"it permits {', '.join(beyond)}, which this site did not enrol with",
            wanted="what was enrolled and no more",
            do="Take it out of site.yaml, or enrol again and name it in --modalities",
        )
        yield failed("policy", error)
    yield passed("policy", f"no count under {rules.k_min}; {rules.min_cohort} people at the least")
    mode = home.policy.stat().st_mode
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        yield DoctorFinding(
            "policy", "warn", "others may change site.yaml", f"chmod 600 {home.policy}"
        )
    if home.state() != "open":
        yield DoctorFinding("state", "warn", home.state(), "healthfm-client resume, to go on")


def modes(home: SiteHome) -> Iterator[DoctorFinding]:
    """Yield which of the site's folder and stores other accounts of this machine may look into.

    Raises:
        ConfigError: ``join.yaml`` cannot be used (HF-102).
    """
    stores = home.settings().stores if home.settings_file.is_file() else ()
    found = False
    for folder in dict.fromkeys((home.path.resolve(), *(choice.path for choice in stores))):
        if paths := list(open_to_others(folder)):
            found = True
            seen = f"{len(paths)} files and folders of {folder} are open to other accounts"
            yield DoctorFinding("modes", "warn", seen, closing_command(folder))
    if not found:
        yield passed("modes", "the site's folder and stores are their owner's alone")


def data(home: SiteHome) -> Iterator[DoctorFinding]:
    """Yield what each modality has to offer, counts under the site's k withheld.

    Raises:
        ConfigError: ``join.yaml`` or the policy cannot be used (HF-1xx).
        StoreError: A store cannot be used, or two contradict each other about a person (HF-2xx).
        PolicyError: The policy permits nothing of it (HF-501), or too few people (HF-501).
    """
    rules = SitePolicy.read(home.policy)
    held, stores = set[str](), list[SiteStore]()
    for choice in home.settings().stores:
        allowed = rules.permitted(choice.modalities)
        for path in stores_below(choice.path):
            store = SiteStore.open(path, modalities=allowed)
            stores.append(store)
            held |= {modality.partition("/")[0] for modality in store.modalities}
            yield from _of_store(store, path.name, rules.k_min)
            if store.set_aside.is_much():
                seen, todo = f"{path.name}: {store.set_aside.sentence()}", "ingest it again"
                yield DoctorFinding("set aside", "warn", seen, f"{todo}: healthfm-client ingest")
            yield from _quality(path)
    for modality in [name for name in rules.modalities if name not in held]:
        yield DoctorFinding(modality, "warn", "no data", "ingest some, if this site has any")
    shared = of_shared_people(stores, rules.k_min)
    if shared:
        yield passed("people", shared)
    rules.check_cohort(sum(len(store.subjects()) for store in join_stores(stores)))


def _quality(path: Path) -> Iterator[DoctorFinding]:
    """Yield what the last check of a store's quality found, where there was one."""
    report = last_report(path)
    if report is None:
        return
    again = f"healthfm-client check {path} --quality"
    if not report.is_of_this_store:
        seen = f"{path.name}: written anew since its quality was checked"
        yield DoctorFinding("quality", "warn", seen, again)
    elif report.failed:
        seen = f"{path.name}: {report.sentence()}, first {report.failed[0].name}"
        yield DoctorFinding("quality", "warn", seen, f"look at them: {again}")
    else:
        yield passed("quality", f"{path.name}: {report.sentence()}")


def _of_store(store: SiteStore, name: str, k: int) -> Iterator[DoctorFinding]:
    for modality, facts in describe(store, k)["modalities"].items():
        people = facts["subjects"]
        shown = f"fewer than {k}" if people is None else f"{people:,}"
        yield passed(modality, f"{name}: {shown} people")
