"""What a study states for the people who decide whether a site takes part in its runs."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import AfterValidator, Field

from healthfm_core.config.base import Schema

MOST_CHARACTERS: Final = 1000


def _printable(text: str) -> str:
    plain = " ".join(text.split())
    if not plain.isprintable():
        raise ValueError("characters that cannot be printed")
    return plain


Sentence = Annotated[str, Field(max_length=MOST_CHARACTERS), AfterValidator(_printable)]


class StudyStatement(Schema):
    """Group ``statement`` of ``study.yaml``; every contract carries it, signed with the terms."""

    purpose: Sentence = Field("", description="what the study is for, in a sentence")
    protocol: Sentence = Field("", description="protocol or ethics reference, as the board gave it")
    contact: Sentence = Field("", description="whom a site asks: a name, telephone or mail")
    task: Sentence = Field("", description="what the model is to predict, in a sentence")

    def stated(self) -> dict[str, str]:
        """Return what is stated, by field; what is empty is left out."""
        return {name: text for name, text in self.model_dump().items() if text}

    def unstated(self) -> tuple[str, ...]:
        """Return the fields that nobody filled in."""
        return tuple(name for name in type(self).model_fields if not getattr(self, name))
