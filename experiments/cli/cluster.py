"""`mfs cluster`: keys, commands for the servers, and commands for their switches."""

import json
import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from experiments.cli.endings import EXIT_FAILED, told_to_the_user
from experiments.cli.options import NewDirectory, Policies, ScenarioName, Seed, Settings
from experiments.errors import UserError

if TYPE_CHECKING:
    from experiments.scenario.scenario import Scenario
    from testbed.cluster.assignment import Assigned
    from testbed.cluster.inventory import Inventory

cluster = typer.Typer(
    help="Run on real servers: keys, the commands for them, and for switches.", no_args_is_help=True
)

InventoryFile = Annotated[
    Path,
    typer.Option("--inventory", metavar="FILE", help="The servers, as a YAML file (docs/start/cluster.md)."),
]
_Python = Annotated[str, typer.Option(help="The Python interpreter on the servers.")]
_Keys = Annotated[
    str | None,
    typer.Option(
        help="Where the servers have the keys of ranks; default: the same place as here.", metavar="DIR"
    ),
]


@cluster.command("keys")
def cluster_keys(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A directory for them, new or empty.")],
) -> None:
    """Make the keys of a cluster: only who has one can take part in a run."""
    with told_to_the_user():
        from controller.curve_files import make_keys

        try:
            own, ranks = make_keys(directory)
        except FileExistsError as error:
            raise UserError(f"{error.filename}: there are keys already; name another directory") from None
        print(f"for this machine, which runs `mfs run`: {own}")
        print(f"copy to every server, readable by its user only: {ranks}")


@cluster.command("command")
def cluster_command(
    scenario: ScenarioName,
    inventory: InventoryFile,
    policy: Policies = None,
    settings: Settings = None,
    seed: Seed = None,
    python: _Python = sys.executable,
    keys: _Keys = None,
) -> None:
    """Print the command that starts the agents on a server. It is the same on each of them."""
    with told_to_the_user():
        from testbed.cluster.commands import torchrun

        found, assigned, job = _resolved(scenario, inventory, policy, settings, seed)
        words = torchrun(
            found, assigned, job, python=_interpreter(python), keys=keys or _keys_of_ranks(found)
        )
        hosts = ", ".join(machine.host for machine in assigned.machines.values())
        print(f"on each of {hosts}:", file=sys.stderr)
        print(shlex.join(words))


@cluster.command("sbatch")
def cluster_sbatch(
    scenario: ScenarioName,
    inventory: InventoryFile,
    policy: Policies = None,
    settings: Settings = None,
    seed: Seed = None,
    python: _Python = sys.executable,
    keys: _Keys = None,
    elastic: Annotated[
        bool, typer.Option("--elastic", help="For `mfs run` with --elastic: go on when a server is lost.")
    ] = False,
) -> None:
    """Print a Slurm script that starts the agents on all servers."""
    with told_to_the_user():
        from testbed.cluster.commands import sbatch

        found, assigned, job = _resolved(scenario, inventory, policy, settings, seed)
        there = keys or _keys_of_ranks(found)
        script = sbatch(found, assigned, job, python=_interpreter(python), keys=there, elastic=elastic)
        print(script, end="")


@cluster.command("switch")
def cluster_switch(
    inventory: InventoryFile,
    ports: Annotated[str, typer.Option(help="Ports of the switch, for SONiC, with commas.")] = "Ethernet0",
) -> None:
    """Print commands that sort packets by DSCP, for NICs (mlnx_qos) and switches (NVUE, SONiC). Untested."""
    with told_to_the_user():
        from experiments.inventory.reading import read_inventory
        from testbed.cluster.switch import UNTESTED, host_commands, nvue_commands, sonic_config

        named = _switch_ports(ports)
        found = read_inventory(inventory)
        if found.dscps is None:
            raise UserError(f"{inventory}: enforcement: is none, so no packet has a level")
        for title, lines in (
            (
                "on every server, for NVIDIA NICs",
                host_commands(found.dscps, [one.nic for one in found.servers]),
            ),
            ("on switches with Cumulus Linux (NVUE)", nvue_commands(found.dscps)),
            (
                "on switches with SONiC, in config_db.json",
                json.dumps(sonic_config(found.dscps, named), indent=2).splitlines(),
            ),
        ):
            print(f"# {title}; {UNTESTED}")
            print("\n".join(lines), end="\n\n")


def _say(text: str) -> None:
    print(f"mfs: {text}", file=sys.stderr, flush=True)


def _switch_ports(text: str) -> list[str]:
    """The ports of a switch. Their names become keys of a configuration, in which `|` parts a key."""
    ports = text.split(",")
    for port in ports:
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_.-]*", port):
            raise UserError(f"--ports: {port!r} is no name of a port; give some as in Ethernet0,Ethernet4")
    return ports


def _interpreter(text: str) -> str:
    """The Python of servers, as a word of the command that `env` begins."""
    if not text or text.startswith("-") or "=" in text:
        raise UserError(
            f"--python: {text!r} would not be taken for a program by `env`; give a path with no = in it"
        )
    return text


def _keys_of_ranks(inventory: "Inventory") -> str:
    return str(Path(inventory.keys) / "ranks")


def _scenario(
    name: str, policy: list[str] | None, settings: list[str] | None, seed: int | None
) -> "Scenario":
    from experiments.scenario.overrides import overrides_of
    from experiments.scenario.reading import load_scenario
    from testbed.fabric import FabricName

    return load_scenario(name, overrides_of(settings or (), policy or (), seed, FabricName.CLUSTER))


def _resolved(
    name: str, file: Path, policy: list[str] | None, settings: list[str] | None, seed: int | None
) -> "tuple[Inventory, Assigned, str]":
    """The inventory, who plays which server, and the digest that agents are started with."""
    from experiments.inventory.job_digest import job_digest
    from experiments.inventory.reading import read_inventory
    from experiments.resolve.jobs import resolve
    from testbed.cluster.assignment import assign

    inventory = read_inventory(file)
    scenario = _scenario(name, policy, settings, seed)
    assigned = assign(resolve(scenario).jobs[0], inventory)
    return inventory, assigned, job_digest(scenario, inventory)


@cluster.command("rehearse")
def cluster_rehearse(
    scenario: Annotated[str, typer.Argument(help="A scenario by name, or a YAML file.")] = "two-flows",
    policy: Policies = None,
    settings: Settings = None,
    seed: Seed = None,
    out: NewDirectory = None,
    queues: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write what each queue has sent there, four times a second."),
    ] = None,
    elastic: Annotated[
        bool,
        typer.Option(
            "--elastic", help="If a rank or a server dies, begin the policy again without its unit."
        ),
    ] = False,
) -> None:
    """Run on servers that are namespaces of this machine, each with a torchrun. Needs root."""
    with told_to_the_user():
        from experiments.inventory.rehearsal import rehearse_scenario

        code = rehearse_scenario(
            scenario,
            policy=policy or (),
            settings=settings or (),
            seed=seed,
            out=out,
            queues=queues,
            say=_say,
            elastic=elastic,
        )
    if code:
        raise typer.Exit(code)


@cluster.command("doctor")
def cluster_doctor(
    scenario: ScenarioName,
    inventory: InventoryFile,
    policy: Policies = None,
    settings: Settings = None,
    seed: Seed = None,
) -> None:
    """Examine the servers of a scenario: versions, GPUs, clocks, marks on the way, bandwidth of each pair.

    Agents have to be started as for a run. They leave afterwards.
    """
    with told_to_the_user():
        from experiments.inventory.doctor_text import examined_text
        from experiments.inventory.fabric import cluster_of
        from experiments.resolve.jobs import resolve

        chosen = _scenario(scenario, policy, settings, seed)
        with cluster_of(chosen, inventory, _say) as fabric:
            examined = fabric.examine(resolve(chosen).jobs[0], _say)
        print(examined_text(examined))
    if examined.wrong:
        raise typer.Exit(EXIT_FAILED)
