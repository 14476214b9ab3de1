"""Wearables: regular samples of a device, such as heart rate and steps."""

from typing import Final

import numpy as np

from healthfm_core.arrays import Bool
from healthfm_core.modalities.spec import ModalitySpec, PersonRecords

WEARABLES: Final = "wearable"
WEARABLE_PREFIX: Final = "WEARABLE//"


def _wearers(records: PersonRecords) -> Bool:
    return np.asarray(records.items_worn > 0, np.bool_)


SPEC: Final = ModalitySpec(
    name=WEARABLES,
    order=1,
    form="samples",
    described_as="wearables",
    value_described_as="hour of wearing",
    code_prefix=WEARABLE_PREFIX,
    events_counted_as="wearable_summary_events",
    holders=_wearers,
)
