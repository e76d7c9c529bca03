"""The flows of the micro workload, as a scenario file gives them."""

from pydantic import BaseModel, ConfigDict, Field

from controller.flow import Stage

MAX_FLOW_BYTES = 10**15


class FlowSpec(BaseModel):
    """One transfer from server `src` to server `dst`. Times are model seconds from the start of the run."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    id: str = Field(min_length=1, max_length=64, pattern=r"^[^\s/]+$")
    src: str
    dst: str
    bytes: int = Field(gt=0, le=MAX_FLOW_BYTES)
    start_s: float = Field(default=0.0, ge=0, le=1e6)
    stage: Stage = Stage.P2D
    deadline_s: float | None = Field(default=None, gt=0, le=1e6)
    layer: int | None = Field(default=None, ge=0, le=100_000)
    batch: str | None = Field(default=None, min_length=1)


def problem_with(flows: tuple[FlowSpec, ...], servers: int) -> tuple[str, str] | None:
    """Return the key and the reason for the first flow that is not valid; None if all are valid.

    Servers are named h1..h`servers`.
    """
    names = {f"h{i + 1}" for i in range(servers)}
    seen: set[str] = set()
    for i, flow in enumerate(flows):
        key = f"workload.flows[{i}]"
        for end, server in (("src", flow.src), ("dst", flow.dst)):
            if server not in names:
                return (
                    f"{key}.{end}",
                    f"{server!r} is not a server of this topology (h1..h{servers})",
                )
        if flow.src == flow.dst:
            return f"{key}.dst", f"{flow.dst!r} is the source too; a flow goes to another server"
        if flow.id in seen:
            return f"{key}.id", f"{flow.id!r} is used twice"
        if flow.deadline_s is not None and flow.deadline_s <= flow.start_s:
            return (
                f"{key}.deadline_s",
                f"{flow.deadline_s:g} is not after the start ({flow.start_s:g}); "
                "it is a time of the run, not a duration",
            )
        seen.add(flow.id)
    return None
