"""A digest of what is to run, and where: agents are started for one scenario on one cluster."""

import hashlib

import msgspec

from experiments.run.identity import identity_of
from experiments.scenario.scenario import Scenario
from experiments.scenario.text import to_yaml
from testbed.cluster.inventory import Inventory
from testbed.fabric import FabricName


def job_digest(scenario: Scenario, inventory: Inventory) -> str:
    """Return 16 hexadecimal digits that change with any key of the scenario, the files that it reads, or the
    inventory."""
    scenario = scenario.model_copy(update={"fabric": FabricName.CLUSTER.value})
    whole = [to_yaml(scenario).encode(), msgspec.json.encode(inventory)]
    whole += [f"{path} {digest}".encode() for path, digest in sorted(identity_of([scenario]).files.items())]
    return hashlib.sha256(b"\0".join(whole)).hexdigest()[:16]
