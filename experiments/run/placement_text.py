"""The placement of ranks in words, for the results."""

from testbed.job import Placement, RankSpec
from testbed.placement import coordinates


def placement_text(placement: Placement) -> list[str]:
    """Return a line per server that has ranks: `h1: rank 0 (p0, replica 0, ep0), rank 8 (decode, 0)`.

    A rank's pipeline stage, replica, part of the sequence and tensor-parallel index are given only if its
    unit has several of them, and so is the tensor-parallel index in a decode worker.
    """
    by_server: dict[str, list[str]] = {}
    for spec in placement.ranks:
        by_server.setdefault(spec.server, []).append(f"rank {spec.rank} ({_seat(placement, spec)})")
    return [f"{server}: {', '.join(places)}" for server, places in by_server.items()]


def _seat(placement: Placement, spec: RankSpec) -> str:
    if spec.unit is None:
        worker, head = divmod(spec.index, placement.decode_tp)
        return f"{spec.role.value}, {worker}" + (f", tp {head}" if placement.decode_tp > 1 else "")
    at, shape = coordinates(placement, spec.unit, spec.index), placement.shapes[spec.unit]
    words = [
        f"{name} {number}"
        for name, number, count in (
            ("stage", at.stage, shape.pp),
            ("replica", at.replica, len(placement.replicas[spec.unit])),
            ("part", at.part, shape.sp),
            ("tp", at.tp, shape.tp),
        )
        if count > 1
    ]
    if at.experts is not None:
        words.append(at.experts.removeprefix(f"{spec.unit}."))
    return ", ".join((spec.unit, *words))
