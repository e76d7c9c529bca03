"""The commands that start agents on real servers: one torchrun per server, by hand or by Slurm. Pure."""

import shlex
from typing import Final

from testbed.cluster.assignment import Assigned
from testbed.cluster.inventory import Inventory
from testbed.fabric import JobRefused

MODULE: Final = "workers.cluster"


def torchrun(inventory: Inventory, assigned: Assigned, job: str, *, python: str, keys: str) -> list[str]:
    """The words of the command, the same on every server.

    `python` is the interpreter there, `keys` the directory with the keys of ranks there.
    """
    hosts = [machine.host for machine in assigned.machines.values()]
    return [
        "env",
        f"MFS_COORDINATOR={inventory.endpoint(0)}",
        f"MFS_KEYS={keys}",
        f"MFS_JOB={job}",
        "OMP_NUM_THREADS=1",
        # No module from the working directory. Not `-P`: torchrun does not pass it on to the agents.
        "PYTHONSAFEPATH=1",
        python,
        "-m",
        "torch.distributed.run",
        "--nnodes",
        str(len(hosts)),
        "--nproc-per-node",
        str(assigned.processes),
        "--max-restarts",
        "0",
        "--rdzv-backend",
        "c10d",
        "--rdzv-id",
        job,
        "--rdzv-endpoint",
        f"{hosts[0]}:{inventory.rendezvous_port}",
        "-m",
        MODULE,
    ]


def sbatch(
    inventory: Inventory, assigned: Assigned, job: str, *, python: str, keys: str, elastic: bool = False
) -> str:
    """A Slurm script: one task per server, which is torchrun. `mfs run` runs on the coordinator beside it.

    With `elastic`, Slurm leaves the other servers alone when one is lost. A task is not bound to CPUs: it is
    all ranks of a server, and Slurm would give it the CPUs of one.

    Raises `JobRefused` if servers differ in GPUs: a Slurm job has the same number on each node.
    """
    hosts = [machine.host for machine in assigned.machines.values()]
    words = torchrun(inventory, assigned, job, python=python, keys=keys)
    gpus = {machine.gpus: machine.host for machine in assigned.machines.values()}
    if len(gpus) > 1:
        told = ", ".join(f"{number} ({host})" for number, host in sorted(gpus.items()))
        raise JobRefused(
            f"servers: have different numbers of GPUs, {told}; a Slurm job asks for the same number on each"
            " node. Give all of them as many `gpus` as the one with the fewest, or start the agents by hand"
            " (mfs cluster command)"
        )
    [gpus_per_node] = gpus
    step = ["srun", f"--kill-on-bad-exit={int(not elastic)}", "--cpu-bind=none"]
    if elastic:
        step.append("--no-kill")
    lines = [
        "#!/bin/bash",
        "#SBATCH --job-name=mfs",
        f"#SBATCH --nodes={len(hosts)}",
        f"#SBATCH --nodelist={','.join(hosts)}",
        "#SBATCH --ntasks-per-node=1",
        # Not per task: that needs --ntasks, too.
        *([f"#SBATCH --gpus-per-node={gpus_per_node}"] if gpus_per_node else []),
        "#SBATCH --exclusive",
        "#SBATCH --mem=0",  # all of it: --exclusive alone gives the partition's default
        *(["#SBATCH --no-kill"] if elastic else []),
        "# Not run on a Slurm cluster by the authors. Start `mfs run` on the coordinator, too.",
        "set -e",
        shlex.join([*step, *words]),
    ]
    return "\n".join(lines) + "\n"
