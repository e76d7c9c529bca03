"""The fabric of a scenario: made by its name, or from an inventory if it is a cluster."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.errors import UserError
from experiments.inventory.job_digest import job_digest
from experiments.inventory.reading import read_inventory
from experiments.resolve.jobs import resolve
from experiments.resolve.losses import check_elastic
from experiments.scenario.scenario import Scenario
from testbed.fabric import Fabric, FabricName
from testbed.fabrics import FABRICS

if TYPE_CHECKING:
    from testbed.cluster.fabric_cluster import ClusterFabric


@contextlib.contextmanager
def made_fabric(
    scenario: Scenario, inventory: Path | None, log: Callable[[str], None], *, elastic: bool = False
) -> Iterator[Fabric]:
    """The fabric of a checked scenario. At the end, the agents of a cluster are dismissed.

    `log` is called with agents and peers that a cluster refuses, in other threads. `elastic` is that of
    `ClusterFabric`. Raises `UserError` if `inventory` or `elastic` is given and the fabric is another one, if
    an inventory is needed and not given, or if the scenario cannot be `elastic`.
    """
    if scenario.fabric != FabricName.CLUSTER:
        if inventory is not None:
            raise UserError(f"--inventory: the fabric {scenario.fabric} has no servers; use --fabric cluster")
        if elastic:
            raise UserError(f"--elastic: the fabric {scenario.fabric} loses no servers; use --fabric cluster")
        yield FABRICS[scenario.fabric]()
        return
    if inventory is None:
        raise UserError("--fabric cluster: name its servers with --inventory cluster.yaml")
    if elastic:
        check_elastic(scenario, resolve(scenario).jobs[0])
    with cluster_of(scenario, inventory, log, elastic=elastic) as cluster:
        yield cluster


@contextlib.contextmanager
def cluster_of(
    scenario: Scenario, inventory: Path, log: Callable[[str], None], *, elastic: bool = False
) -> "Iterator[ClusterFabric]":
    """The servers of an inventory, for a scenario. At the end, the agents are dismissed."""
    from testbed.cluster.fabric_cluster import ClusterFabric

    found = read_inventory(inventory)
    job = job_digest(scenario, found)
    with contextlib.closing(ClusterFabric(found, job=job, elastic=elastic, log=log)) as cluster:
        yield cluster
