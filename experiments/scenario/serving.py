"""The section of a scenario that says how requests are served."""

import enum
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from experiments.scenario.known_names import known_batching, known_decode_choice, known_policy, known_router
from experiments.scenario.section import Section, refusal
from testbed.job import ReuseRule


class AllReduce(enum.Enum):
    RING = "ring"
    TREE = "tree"


class FetchStart(enum.StrEnum):
    BATCH = "batch"
    QUEUE = "queue"


class ServingSection(Section):
    router: Annotated[str, AfterValidator(known_router)] = Field(
        default="least-queued-tokens", description="how the prefill unit of a request is picked"
    )
    max_batch_tokens: int = Field(
        default=8192, ge=1, le=16_777_216, description="most new tokens of a prefill batch"
    )
    decode: Annotated[str, AfterValidator(known_decode_choice)] = Field(
        default="round-robin", description="how the decode worker of a request is picked"
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
        description="a prompt that does not fit into a batch of this many new tokens is split; null: no "
        "prompt is split",
    )
    preempt_layers: int | None = Field(
        default=None,
        ge=1,
        le=10_000,
        description="number of layers after which a batch pauses, so that requests that would be late "
        "after it may go first; null: batches do not pause",
    )
    decode_batch: int | None = Field(
        default=None,
        ge=1,
        le=100_000,
        description="most requests in one step of a decode worker; null: nothing after the first token is "
        "modelled, and no TPOT is reported",
    )
    decode_background: int = Field(
        default=0,
        ge=0,
        le=100_000,
        description="requests that each decode worker decodes throughout the run; their collectives add to "
        "the traffic",
    )
    all_reduce: AllReduce = Field(
        default=AllReduce.RING, description="how tensor-parallel ranks add up their vectors"
    )
    cache_tokens: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000_000,
        description="most KV that a replica keeps, in tokens; the least recently used is evicted first; "
        "null: no limit",
    )
    cache_gib: float | None = Field(
        default=None, gt=0, le=1e9, description="the same limit in GiB, over all ranks of a replica"
    )
    reuse: ReuseRule = Field(
        default=ReuseRule.FETCH,
        description="what is done with a cached prefix that only other replicas have: fetch it, compute it "
        "again, or what is estimated to be sooner when the batch is formed",
    )
    fetch: FetchStart = Field(
        default=FetchStart.BATCH,
        description="when the fetch of reused KV from another replica starts: when the batch is formed, or "
        "when the request is queued",
    )
    fetch_ahead: int | None = Field(
        default=None,
        ge=0,
        le=10_000,
        description="how many layers ahead of the batch reused KV is fetched; null: all layers at once",
    )
    batches_of: Annotated[str, AfterValidator(known_policy)] | None = Field(
        default=None,
        description="a policy: all policies run the batches that it forms; null: each forms its own",
    )

    @model_validator(mode="after")
    def _one_cache_size(self) -> "ServingSection":
        if self.cache_tokens is not None and self.cache_gib is not None:
            raise refusal("serving.cache_gib", "only one of cache_tokens and cache_gib may be given")
        return self

    @model_validator(mode="after")
    def _fetched_before_it_is_decided(self) -> "ServingSection":
        if self.fetch is FetchStart.QUEUE and self.reuse is not ReuseRule.FETCH:
            raise refusal(
                "serving.reuse",
                f"{self.reuse} is decided when the batch is formed, but serving.fetch: queue fetches earlier",
            )
        return self
