"""Which busy lane is lent the level of a flow that waits for a lane."""

from collections.abc import Iterator, Sequence

from controller.flow import Level


def loans(held: Sequence[Level], waiting: Sequence[Level]) -> Iterator[tuple[int, int]]:
    """Pairs of a lane and the waiting flow whose level it is lent.

    `held` are the levels of the lanes of a pair of ranks, all of them busy, longest taken first;
    `waiting` those of the flows that wait, most urgent first, no more of them than there are lanes.
    The i-th of these needs i lanes that are as urgent; what is missing, the lanes taken first lend.

    Otherwise a pool full of deferred flows would hold up an urgent one (priority inversion).
    """
    levels = list(held)
    for i, level in enumerate(waiting):
        if sum(other <= level for other in levels) > i:
            continue
        lane = next(number for number, other in enumerate(levels) if other > level)
        levels[lane] = level
        yield lane, i
