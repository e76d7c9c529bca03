"""Small pieces that tests of the scheduler are built from."""

from controller.flow import BatchRequest


def due(*deadlines_ns: int) -> tuple[BatchRequest, ...]:
    """One request per deadline, called `r0`, `r1` and so on."""
    return tuple(BatchRequest(id=f"r{i}", deadline_ns=at_ns) for i, at_ns in enumerate(deadlines_ns))
