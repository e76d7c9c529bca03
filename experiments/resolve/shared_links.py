"""Which stages meet on a link: where none do, no order of the stages can matter."""

from collections.abc import Iterator
from itertools import combinations

from controller.flow import Stage
from testbed.serving.capacity import Demand

_KEYS = "(topology.kind, units.layout and the sizes in units decide that)"


def shared_links_notes(each: Demand) -> Iterator[str]:
    """Say so if no link carries two stages, or none carries both S2 and S3. `each` is what requests take."""
    ports = each.ports
    sent = [stage for stage, crossed in ports.items() if crossed]
    if len(sent) > 1 and not any(ports[one] & ports[other] for one, other in combinations(sent, 2)):
        *names, last = (stage.value for stage in sent)
        yield (
            f"{', '.join(names)} and {last} share no link: the order of stages cannot matter, policies can"
            f" differ only in the order within a stage {_KEYS}"
        )
    elif Stage.COLLECTIVE in sent and Stage.P2D in sent and not ports[Stage.COLLECTIVE] & ports[Stage.P2D]:
        yield f"S2 and S3 share no link: which of the two goes first cannot matter {_KEYS}"
    elif Stage.P2D in sent and Stage.COLLECTIVE not in sent:
        yield f"S2 crosses no link: collectives cannot be held up by other stages {_KEYS}"
