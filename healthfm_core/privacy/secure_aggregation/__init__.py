"""Secure aggregation: the coordinator learns the sum of the sites' arrays and of no fewer.

The protocol of Bonawitz et al. (CCS 2017) on the sparse graph of Bell et al. (CCS 2020), without
transport: `terms` and `messages` are what is said, `site` and `server` who says it, `keys`,
`shamir` and `masks` what it rests on, `graph` who masks with whom, `fixed_point` how numbers stand
in the ring.
"""

from healthfm_core.privacy.secure_aggregation.fixed_point import FixedPoint
from healthfm_core.privacy.secure_aggregation.keys import Signer, SigningKey
from healthfm_core.privacy.secure_aggregation.messages import (
    Mailbox,
    SealedShares,
    UnmaskReply,
    UnmaskRequest,
)
from healthfm_core.privacy.secure_aggregation.server_session import ServerSession
from healthfm_core.privacy.secure_aggregation.site_session import (
    SiteSession,
    begin,
    mask,
    share,
    unmask,
)
from healthfm_core.privacy.secure_aggregation.terms import KeyAdvert, KeyBook, Terms

__all__ = [
    "FixedPoint",
    "KeyAdvert",
    "KeyBook",
    "Mailbox",
    "SealedShares",
    "ServerSession",
    "Signer",
    "SigningKey",
    "SiteSession",
    "Terms",
    "UnmaskReply",
    "UnmaskRequest",
    "begin",
    "mask",
    "share",
    "unmask",
]
