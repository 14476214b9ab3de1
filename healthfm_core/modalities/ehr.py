"""Clinical records: diagnoses, drugs, measurements, visits; whatever has a code."""

from typing import Final

from healthfm_core.modalities.spec import ModalitySpec

EHR: Final = "ehr"

SPEC: Final = ModalitySpec(
    name=EHR,
    order=0,
    form="codes",
    described_as="clinical records",
    value_described_as="clinical event",
    events_counted_as="ehr_events",
)
