"""What all sections of a scenario have in common: what they refuse, and how they report it."""

import enum
from typing import Any

from pydantic import BaseModel, ConfigDict
from pydantic_core import PydanticCustomError


class Section(BaseModel):
    """A section of a scenario. It is frozen, and refuses unknown keys and numbers that are not finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class PydanticKind(enum.StrEnum):
    """The types of pydantic's errors that get messages of their own."""

    MISSING = "missing"
    EXTRA = "extra_forbidden"
    ENUM = "enum"
    TOO_SHORT = "too_short"
    STRING_TYPE = "string_type"
    STRING_PATTERN = "string_pattern_mismatch"


class ProblemKind(enum.StrEnum):
    """The types of errors that we raise, in addition to those of pydantic."""

    REFUSED = "refused"
    UNKNOWN_NAME = "unknown_name"
    POLICY = "policy"
    PATH_CHOICE = "path_choice"
    SLO = "slo"


def refusal(key: str, reason: str, **beside: object) -> PydanticCustomError:
    """Return an error of several keys together, or of a file, that is reported for the full key `key`.

    `beside` are keys of the same section whose values decide as well. The user may have given none of them,
    so the message says where each value is from.
    """
    section = key.rpartition(".")[0]
    others = {f"{section}.{name}": value for name, value in beside.items()}
    context: dict[str, Any] = {"key": key, "reason": reason, "beside": others}
    return PydanticCustomError(ProblemKind.REFUSED.value, "{reason}", context)
