"""Genomics: a panel of polygenic scores per person."""

from typing import Final

from healthfm_core.modalities.spec import ModalitySpec

GENOMICS: Final = "genomics"
PRS_PREFIX: Final = "PRS//"

SPEC: Final = ModalitySpec(
    name=GENOMICS,
    order=2,
    form="panel",
    described_as="polygenic scores",
    value_described_as="polygenic score",
    code_prefix=PRS_PREFIX,
    events_counted_as="scores",
    short_columns=True,
)
