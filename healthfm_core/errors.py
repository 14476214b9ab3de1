"""The tree of errors a user or a file can cause, each with a stable code and a remedy."""

from __future__ import annotations

from typing import ClassVar, Final

CODES: Final[dict[int, str]] = {
    # 1xx configuration
    101: "a configuration key is unknown",
    102: "a configuration value has the wrong type or is out of range",
    103: "two configuration values contradict each other",
    104: "a configuration group or file does not exist",
    105: "the disk is too full",
    106: "a task's definition cannot be used",
    107: "a file or folder cannot be read or written",
    # 2xx site store
    201: "a column is missing",
    202: "a column has the wrong type",
    203: "events are not sorted by subject and time",
    204: "an event occurs twice",
    205: "a subject is in two files or two splits",
    206: "the store is empty",
    207: "the store is half-written",
    208: "the store does not exist or is not a store",
    209: "a file cannot be read",
    210: "a subject is unknown",
    211: "polygenic scores are not normalised",
    # 3xx ingest
    301: "the input does not exist",
    302: "no reader recognises the input",
    303: "an input file cannot be read",
    304: "the output exists already",
    305: "an identifier is missing",
    306: "the input holds no usable row",
    307: "a column is missing from the input",
    308: "a column of the input has the wrong type",
    309: "the input has too many distinct codes",
    310: "an archive or compressed file is not safe to unpack",
    311: "the disk is nearly full",
    312: "a package that is needed for it is not installed",
    313: "another ingest is writing there",
    314: "a process that reads the input was killed",
    # 4xx federation
    401: "sites run different protocol versions",
    402: "a reply does not fit the contract",
    403: "too few sites answered",
    404: "the contract is unknown at the site",
    405: "the vocabulary differs from the study's",
    406: "no site has the data the study needs",
    407: "a site failed unexpectedly",
    408: "the study's server cannot be reached",
    409: "this machine's clock is too far from the server's",
    # 5xx site policy
    501: "the site's policy does not permit the request",
    502: "something about a person would be where it may leave the site",
    503: "a person at the site has to approve the run first",
    504: "it is outside the hours in which the site works",
    505: "the site is paused",
    506: "a person at the site denied the run",
    507: "what would leave the site cannot be put on record",
    508: "the site has left the study",
    # 6xx privacy
    601: "the privacy budget would be exceeded",
    602: "the privacy ledger is damaged",
    603: "the privacy ledger cannot be read or written",
    604: "the privacy settings cannot be met by this site",
    610: "keys or shares of secure aggregation are not what they should be",
    611: "too few sites are left to open a sum",
    612: "a request would open a single site's update",
    613: "a value cannot be summed securely",
    # 7xx runs
    701: "there is no run to resume",
    702: "the run was made with another configuration",
    703: "a checkpoint is damaged",
    704: "the output folder holds another run",
    705: "the run was interrupted and can be resumed",
    706: "the simulation engine did not start",
    707: "a model folder is incomplete or damaged",
    708: "the model was not trained to answer this",
    709: "the model has no such target",
    710: "there is no visit to explain",
    711: "the output file exists already or cannot be written",
    712: "the model to start from is of another size",
    720: "there is no study in the folder",
    721: "a process of the study did not start or stop",
    722: "the study has no run of that name",
    723: "the run failed or was stopped",
    724: "another process works on the run or the study",
    725: "the run's folder cannot be written",
    # 8xx trust
    801: "a key, certificate or kit file exists already",
    802: "a key file is missing, damaged or open to others",
    803: "a certificate was not issued by this study's root",
    804: "a certificate is expired or not yet valid",
    805: "a certificate is revoked",
    806: "a request or kit file is not what it should be",
    807: "a request does not prove that its sender has the keys",
    808: "a kit was not signed by the study",
    809: "a fingerprint differs",
    810: "a name, address or host cannot be used",
    811: "a site is not registered",
    812: "a site of that name is registered already",
    813: "a contract is not signed",
    814: "a contract was altered",
    815: "a contract was signed by another than the study's signer",
    816: "a contract has expired",
    817: "a contract is not valid yet",
    818: "a contract was used before",
    819: "a contract is of another study",
    820: "a site answers from a node that is not its own",
    821: "a name has a token already, or has none",
    822: "a record of what left the site was changed",
    830: "the site has no kit",
}
"""Every code that can be raised and what it means; docs/exit-codes.md is made from it."""


class HealthFMError(Exception):
    """Something a person can put right: where, what was seen, what was wanted, what to do.

    Args:
        number: A key of `CODES`; printed as ``HF-<number>`` and never reused.
        where: File, column, option or site. Never a subject's id or a value of a record.
        seen: What was found there.
        wanted: What was expected instead.
        do: One action that resolves it.

    The process that ends on one exits with `exit_code`, which is the same for a whole subclass.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, number: int, *, where: str, seen: str, wanted: str, do: str) -> None:
        if number not in CODES:
            raise KeyError(f"HF-{number} is not in errors.CODES")
        self.number = number
        self.where = where
        self.seen = seen
        self.wanted = wanted
        self.do = do
        super().__init__(number, where, seen, wanted, do)

    @property
    def code(self) -> str:
        """The stable code, for example ``HF-201``."""
        return f"HF-{self.number}"

    def __str__(self) -> str:
        name = type(self).__name__
        return f"{name}[{self.code}]: {self.where}: {self.seen}; {self.wanted}. {self.do}"

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        """Survives a process boundary (Ray workers raise these too)."""
        return _rebuild, (type(self), self.number, self.where, self.seen, self.wanted, self.do)


def _rebuild(
    cls: type[HealthFMError], number: int, where: str, seen: str, wanted: str, do: str
) -> HealthFMError:
    return cls(number, where=where, seen=seen, wanted=wanted, do=do)


class ConfigError(HealthFMError):
    """The configuration cannot be used (HF-1xx)."""

    exit_code = 2


class StoreError(HealthFMError):
    """A site store is not what MEDS and HealthFM want (HF-2xx)."""

    exit_code = 3


class IngestError(HealthFMError):
    """A source cannot be turned into a store (HF-3xx)."""

    exit_code = 4


class ProtocolError(HealthFMError):
    """Server and site do not understand each other (HF-4xx)."""

    exit_code = 5


class PolicyError(HealthFMError):
    """The site's own policy says no (HF-5xx)."""

    exit_code = 6


class PrivacyError(HealthFMError):
    """The privacy budget or its bookkeeping says no (HF-6xx)."""

    exit_code = 7


class RunError(HealthFMError):
    """A run cannot be started, resumed or finished (HF-7xx)."""

    exit_code = 8


class TrustError(HealthFMError):
    """A key, certificate, kit or contract cannot be trusted (HF-8xx)."""

    exit_code = 9
