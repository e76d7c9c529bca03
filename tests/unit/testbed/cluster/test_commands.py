"""The commands for servers and switches: what is in them follows from the inventory and the job."""

import itertools
import re
import shlex
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from serving_world import job, placed
from torch.distributed.run import get_args_parser

from testbed.cluster.assignment import assign
from testbed.cluster.commands import sbatch, torchrun
from testbed.cluster.inventory import Coordinator, Inventory, Server
from testbed.cluster.switch import host_commands, nvue_commands, sonic_config
from testbed.fabric import JobRefused

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


def test_the_working_directory_gives_no_module_to_agents(tmp_path: Path) -> None:
    """torchrun starts them itself, with options of its own for Python."""
    wrong = tmp_path / "workers" / "cluster.py"
    wrong.parent.mkdir()
    wrong.write_text("print('from the working directory')")
    (wrong.parent / "__init__.py").touch()
    words = torchrun(INVENTORY, ASSIGNED, "digest", python=sys.executable, keys=str(tmp_path))
    at = words.index("--nnodes")
    alone = [*words[:at], "--standalone", "--nproc-per-node", "1", *words[-2:]]
    done = subprocess.run(alone, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "from the working directory" not in done.stdout
    assert "mfs agent: no key file" in done.stderr or "no key file" in done.stderr


def test_torchrun_has_every_option_that_the_command_uses() -> None:
    words = torchrun(INVENTORY, ASSIGNED, "digest", python="python3", keys="keys")
    options = words[words.index("torch.distributed.run") + 1 :]
    read = get_args_parser().parse_args(options)
    assert (read.nnodes, read.nproc_per_node, read.max_restarts) == ("2", "3", 0)
    assert (read.rdzv_backend, read.rdzv_id, read.rdzv_endpoint) == ("c10d", "digest", "node1:29400")
    assert read.module
    assert read.training_script == "workers.cluster"
    assert read.training_script_args == []


ODD = "/o'dd $HOME/`id`; x/keys"


def test_a_shell_reads_odd_paths_as_they_are(tmp_path: Path) -> None:
    """In place of srun and torchrun, `printf` prints its arguments, one in a line."""
    script = sbatch(INVENTORY, ASSIGNED, "digest", python="/a b/python", keys=ODD)
    assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0
    read = subprocess.run(
        ["bash", "-c", "srun() { printf '%s\\n' \"$@\"; }\n" + script],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert read[2:] == torchrun(INVENTORY, ASSIGNED, "digest", python="/a b/python", keys=ODD)
    assert f"MFS_KEYS={ODD}" in read


def test_slurm_reads_all_its_options_before_the_first_command() -> None:
    """sbatch looks no further, and asks for the same number of GPUs on each node."""
    lines = sbatch(INVENTORY, ASSIGNED, "digest", python="python3", keys="keys").splitlines()
    first = next(i for i, line in enumerate(lines) if not line.startswith("#"))
    assert not any(line.startswith("#SBATCH") for line in lines[first:])
    assert all(re.fullmatch(r"#SBATCH --[a-z-]+(=\S+)?", line) for line in lines[1 : first - 1])


def test_slurm_is_refused_for_servers_with_different_numbers_of_gpus() -> None:
    machines = ASSIGNED.machines
    fewer = {"h1": msgspec.structs.replace(machines["h1"], gpus=2), "h2": machines["h2"]}
    assigned = msgspec.structs.replace(ASSIGNED, machines=fewer)
    with pytest.raises(JobRefused, match=r"different numbers of GPUs, 2 \(node1\), 4 \(node2\);"):
        sbatch(INVENTORY, assigned, "digest", python="python3", keys="keys")


def test_slurm_gets_one_task_per_server_that_is_the_same_command() -> None:
    script = sbatch(INVENTORY, ASSIGNED, "digest", python="python3", keys="/my keys")
    assert "#SBATCH --nodes=2\n" in script
    assert "#SBATCH --nodelist=node1,node2\n" in script
    assert "#SBATCH --ntasks-per-node=1\n" in script
    assert "#SBATCH --gpus-per-node=4\n" in script
    assert "#SBATCH --mem=0\n" in script
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


def test_a_shell_reads_an_odd_interface_as_one_word() -> None:
    """An inventory cannot have it, but this function can be called without one."""
    for line in host_commands(DSCP, ["eth1;reboot"]):
        assert shlex.split(line)[:3] == ["mlnx_qos", "-i", "eth1;reboot"]


def test_other_dscps_are_taken_over() -> None:
    lines = host_commands((46, 34, 26, 18, 10, 8, 2, 0), ["eth1"])
    found = [re.findall(r"set,(\d+),(\d+)", line) for line in lines]
    assert [pair for pairs in found for pair in pairs][:2] == [("46", "7"), ("34", "6")]
