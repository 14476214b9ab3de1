"""The models that a study's rounds began with at this site: what the next order changes."""

from __future__ import annotations

from dataclasses import dataclass

from flwr.app import ArrayRecord

from healthfm_client.site.round_files import RoundFiles
from healthfm_client.transport.site_array_records import arrays_of, parameters_of
from healthfm_core.arrays import Float32Arrays
from healthfm_core.errors import ProtocolError, RunError
from healthfm_core.federation.compression.compressor import Compressor
from healthfm_core.federation.compression.reference_model import (
    changed,
    digests_by_group,
    zeros,
)
from healthfm_core.federation.parameter_groups import group_names
from healthfm_core.federation.protocol import RoundOrder


@dataclass(frozen=True)
class HeldModels:
    """One study's models at this site.

    Attributes:
        files: Of the study: what each round began with.
        compressor: How changes of the model travel.
    """

    files: RoundFiles
    compressor: Compressor

    def receive(self, order: RoundOrder, record: ArrayRecord) -> Float32Arrays:
        """Return the model that an order is about, once it is on disk.

        Raises:
            ProtocolError: It is a change of a model that the site does not have (HF-411), or the
                arrays cannot be read (HF-402).
        """
        if order.reference:
            model = self._changed(order, record, self._reference(order))
        elif order.shapes:
            model = self._changed(order, record, zeros(order.shapes))
        else:
            model = parameters_of(record)
        self.files.keep(order.round, model)
        return model

    def _reference(self, order: RoundOrder) -> Float32Arrays:
        if order.reference not in self.files.rounds():
            raise _lacking(order, "no model of that round")
        try:
            return self.files.read(order.reference)
        except RunError as error:
            raise _lacking(order, "a model of that round that cannot be read") from error

    def _changed(
        self, order: RoundOrder, record: ArrayRecord, reference: Float32Arrays
    ) -> Float32Arrays:
        try:
            held = group_names(reference)
            if not set(order.groups) <= held.keys():
                raise _lacking(order, "a model of that round with fewer groups")
            groups = {group: held[group] for group in order.groups}
            model = changed(self.compressor, groups, arrays_of(record), reference)
        except ValueError as error:
            raise ProtocolError(
                402,
                where="train message",
                seen=f"a change of the model that is not as the run says: {error}",
                wanted="the study's codec, federation.codec.downlink",
            ) from error
        if digests_by_group(groups, model) != order.digests:
            raise _lacking(order, "a model of that round that gives another one")
        return model


def _lacking(order: RoundOrder, seen: str) -> ProtocolError:
    return ProtocolError(411, where=f"a change of the model of round {order.reference}", seen=seen)
