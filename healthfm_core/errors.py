"""The tree of errors a user or a file can cause, each with a stable code and a remedy."""

from __future__ import annotations

from typing import ClassVar

from healthfm_core.error_codes import CODES


class HealthFMError(Exception):
    """Something a person can put right: where, what was seen, what was wanted, what to do.

    Args:
        number: A key of `CODES`; printed as ``HF-<number>`` and never reused.
        where: File, column, option or site. Never a subject's id or a value of a record.
        seen: What was found there; None: what the code means.
        wanted: What was expected instead; None: what is usual for the code.
        do: One action that resolves it; None: what is usual for the code.

    Raises:
        KeyError: `CODES` does not have the number, or nothing usual for what was left out.

    The process that ends on one exits with `exit_code`, which is the same for a whole subclass.
    """

    exit_code: ClassVar[int] = 1

    def __init__(
        self,
        number: int,
        *,
        where: str,
        seen: str | None = None,
        wanted: str | None = None,
        do: str | None = None,
    ) -> None:
        usual = CODES[number]
        self.number = number
        self.where = where
        self.seen = usual.means if seen is None else seen
        self.wanted = usual.wanted if wanted is None else wanted
        self.do = usual.do if do is None else do
        if not self.wanted or not self.do:
            raise KeyError(f"HF-{number} has no usual text for what was left out here")
        super().__init__(number, where, self.seen, self.wanted, self.do)

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
    """A source cannot be turned into a store, or an input used (HF-3xx)."""

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
