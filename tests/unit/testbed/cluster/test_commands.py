"""The commands for servers and switches: what is in them follows from the inventory and the job."""

import itertools
import re
import shlex

from serving_world import job, placed

from testbed.cluster.assignment import assign
from testbed.cluster.commands import sbatch, torchrun
from testbed.cluster.inventory import Coordinator, Inventory, Server
from testbed.cluster.switch import host_commands, nvue_commands, sonic_config

DSCP = (56, 48, 40, 32, 24, 16, 8, 0)
INVENTORY = Inventory(
    coordinator=Coordinator(address="10.1.0.1", port=7000),
    servers=tuple(Server(host=f"node{i}", address=f"192.168.1.{i}", nic="eth1", gpus=4) for i in range(1, 4)),
    keys="keys",
)
ASSIGNED = assign(job(*placed(servers=2)), INVENTORY)
"""Five ranks on two servers in turn, so three on the first, and three processes on both."""


def test_every_server_starts_as_many_processes_as_the_fullest_needs() -> None:
    words = torchrun(INVENTORY, ASSIGNED, "digest", python="/usr/bin/python3", keys="/keys/ranks")
    assert words[:4] == [
        "env",
        "MFS_COORDINATOR=tcp://10.1.0.1:7000",
        "MFS_KEYS=/keys/ranks",
        "MFS_JOB=digest",
    ]
    options = dict(itertools.pairwise(words))
    assert options["--nnodes"] == "2"
    assert options["--nproc-per-node"] == "3"
    assert options["--max-restarts"] == "0"
    assert options["--rdzv-endpoint"] == "node1:29400"
    assert words[-2:] == ["-m", "workers.cluster"]


def test_slurm_gets_one_task_per_server_that_is_the_same_command() -> None:
    script = sbatch(INVENTORY, ASSIGNED, "digest", python="python3", keys="/my keys")
    assert "#SBATCH --nodes=2\n" in script
    assert "#SBATCH --nodelist=node1,node2\n" in script
    assert "#SBATCH --ntasks-per-node=1\n" in script
    assert "#SBATCH --gpus-per-node=4\n" in script
    [line] = [line for line in script.splitlines() if line.startswith("srun")]
    words = shlex.split(line)
    assert words[:3] == ["srun", "--kill-on-bad-exit=1", "--cpu-bind=none"]
    assert words[3:] == torchrun(INVENTORY, ASSIGNED, "digest", python="python3", keys="/my keys")


def test_slurm_goes_on_without_a_server_if_the_run_does() -> None:
    script = sbatch(INVENTORY, ASSIGNED, "digest", python="python3", keys="keys", elastic=True)
    assert "#SBATCH --no-kill\n" in script
    assert "\nsrun --kill-on-bad-exit=0 --cpu-bind=none --no-kill env " in script


def test_the_most_urgent_level_gets_the_highest_priority_everywhere() -> None:
    """CONTROL is DSCP 56 and priority 7, SCAVENGER is DSCP 0 and priority 0."""
    host = host_commands(DSCP, ["eth1", "eth1"])
    assert host[0] == "mlnx_qos -i eth1 --trust dscp"
    assert host[1:9] == [f"mlnx_qos -i eth1 --dscp2prio set,{DSCP[i]},{7 - i}" for i in range(8)]
    assert len(host) == 11  # the interface is named once
    nvue = nvue_commands(DSCP)
    assert "nv set qos mapping mfs dscp 56 switch-priority 7" in nvue
    assert sum(line.endswith("mode strict") for line in nvue) == 8
    sonic = sonic_config(DSCP, ["Ethernet0"])
    assert sonic["DSCP_TO_TC_MAP"]["MFS"] == {str(DSCP[i]): str(7 - i) for i in range(8)}
    assert sonic["QUEUE"]["Ethernet0|7"] == {"scheduler": "mfs.strict"}


def test_other_dscps_are_taken_over() -> None:
    lines = host_commands((46, 34, 26, 18, 10, 8, 2, 0), ["eth1"])
    found = [re.findall(r"set,(\d+),(\d+)", line) for line in lines]
    assert [pair for pairs in found for pair in pairs][:2] == [("46", "7"), ("34", "6")]
