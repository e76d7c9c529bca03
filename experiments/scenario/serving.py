"""The section of a scenario that says how requests are served."""

import enum
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from experiments.scenario.known_names import known_batching, known_decode_choice, known_router
from experiments.scenario.section import Section, refusal


class AllReduce(enum.Enum):
    RING = "ring"
    TREE = "tree"


class FetchStart(enum.StrEnum):
    BATCH = "batch"
    QUEUE = "queue"


class ServingSection(Section):
    router: Annotated[str, AfterValidator(known_router)] = Field(
        default="least-queued-tokens", description="which prefill unit a request is sent to"
    )
    max_batch_tokens: int = Field(
        default=8192, ge=1, le=16_777_216, description="most tokens to compute in one prefill batch"
    )
    decode: Annotated[str, AfterValidator(known_decode_choice)] = Field(
        default="round-robin", description="which decode worker a request is given"
    )
    batching: Annotated[str, AfterValidator(known_batching)] | None = Field(
        default=None,
        description="how a unit forms batches: fcfs, deadline, red, length-aware; null: as the policy's "
        "request control says, else fcfs",
    )
    chunk_tokens: int | None = Field(
        default=None,
        ge=1,
        le=16_777_216,
        description="a prompt that does not fit into a batch of this many new tokens is split; null: none is",
    )
    preempt_layers: int | None = Field(
        default=None,
        ge=1,
        le=10_000,
        description="after so many layers a batch pauses, and one that would be too late after it may go "
        "first; null: a batch runs through",
    )
    decode_batch: int | None = Field(
        default=None,
        ge=1,
        le=100_000,
        description="requests that a decode worker has in one step at most; null: nothing after the first "
        "token is modelled, and no TPOT reported",
    )
    decode_background: int = Field(
        default=0,
        ge=0,
        le=100_000,
        description="requests that each decode worker decodes all the while: their collectives are traffic "
        "beside that of prefill",
    )
    all_reduce: AllReduce = Field(
        default=AllReduce.RING, description="how tensor-parallel ranks add up their vectors"
    )
    cache_tokens: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000_000,
        description="KV that a replica keeps, in tokens; the least recently used goes first; null: all",
    )
    cache_gib: float | None = Field(
        default=None, gt=0, le=1e9, description="the same in GiB on all ranks of a replica together"
    )
    fetch: FetchStart = Field(
        default=FetchStart.BATCH,
        description="when reused KV of another replica is sent for: as the batch starts, or when its request "
        "is queued",
    )
    fetch_ahead: int | None = Field(
        default=None,
        ge=0,
        le=10_000,
        description="how many layers ahead of the batch reused KV is sent for; null: all layers at once",
    )

    @model_validator(mode="after")
    def _one_cache_size(self) -> "ServingSection":
        if self.cache_tokens is not None and self.cache_gib is not None:
            raise refusal("serving.cache_gib", "is the size of the cache like serving.cache_tokens: give one")
        return self
