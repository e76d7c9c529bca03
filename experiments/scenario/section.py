"""What all sections of a scenario have in common: frozen, refusing keys and numbers they do not know."""

from typing import Any

from pydantic import BaseModel, ConfigDict
from pydantic_core import PydanticCustomError


class Section(BaseModel):
    """What all parts of a scenario have in common."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def refusal(key: str, reason: str) -> PydanticCustomError:
    """An error of several keys together, blamed on one of them by its full name."""
    context: dict[str, Any] = {"key": key, "reason": reason}
    return PydanticCustomError("refused", "{reason}", context)
