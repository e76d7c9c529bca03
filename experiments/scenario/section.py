"""What all sections of a scenario have in common: what they refuse, and how they say so."""

import enum
from typing import Any

from pydantic import BaseModel, ConfigDict
from pydantic_core import PydanticCustomError


class Section(BaseModel):
    """A part of a scenario: frozen, and without room for keys and numbers it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class PydanticKind(enum.StrEnum):
    """The types of the errors that pydantic finds, as far as they are told apart here."""

    MISSING = "missing"
    EXTRA = "extra_forbidden"
    ENUM = "enum"
    TOO_SHORT = "too_short"
    STRING_TYPE = "string_type"
    STRING_PATTERN = "string_pattern_mismatch"


class ProblemKind(enum.StrEnum):
    """The types of the errors that are found here, beside those of pydantic."""

    REFUSED = "refused"
    UNKNOWN_NAME = "unknown_name"
    POLICY = "policy"
    PATH_CHOICE = "path_choice"
    SLO = "slo"


def refusal(key: str, reason: str) -> PydanticCustomError:
    """An error of several keys together, or of a file, blamed on one key by its full name."""
    context: dict[str, Any] = {"key": key, "reason": reason}
    return PydanticCustomError(ProblemKind.REFUSED.value, "{reason}", context)
