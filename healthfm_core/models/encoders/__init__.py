"""One encoder per modality; each is a parameter group that only sites with the modality hold.

`registry` finds the files of this package that have a ``FACTORY``.
"""

from healthfm_core.models.encoders.ehr import EHREncoder
from healthfm_core.models.encoders.genomics import GenomicsEncoder
from healthfm_core.models.encoders.wearable import WearableEncoder

__all__ = ["EHREncoder", "GenomicsEncoder", "WearableEncoder"]
