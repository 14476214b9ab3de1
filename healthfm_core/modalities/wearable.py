"""Wearables: regular samples of a device, such as heart rate and steps."""

from typing import Final

from healthfm_core.arrays import Bool
from healthfm_core.modalities.spec import ModalitySpec, PersonRecords, subjects_with_items

WEARABLES: Final = "wearable"
WEARABLE_PREFIX: Final = "WEARABLE//"


def _wearers(records: PersonRecords) -> Bool:
    return subjects_with_items(records, records.wearable_row >= 0)


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
