"""What a coordinator says when a site is admitted."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class AdmissionTerms:
    """How a site is admitted.

    Attributes:
        name: The site's.
        compared: The ten words as the site read them, or its tls key's fingerprint.
        most_subjects: Most training subjects that it may say it has; None: what its request names.
        renew: Whether a site on the list gets new keys.
    """

    name: str
    compared: str
    most_subjects: int | None = None
    renew: bool = False
