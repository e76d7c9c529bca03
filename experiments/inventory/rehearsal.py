"""From a scenario to a rehearsal of it: the scale that fits this machine, and the options of its commands."""

import contextlib
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from experiments.errors import UserError
from experiments.resolve.jobs import resolve
from experiments.resolve.scale import duration_note
from experiments.run.directory import new_directory, results_directory
from experiments.scenario.overrides import overrides_of
from experiments.scenario.reading import builtin_scenarios, load_scenario
from testbed.cluster.namespaces import Network
from testbed.cluster.rehearsal import Rehearsal, rehearse, where
from testbed.emulation.requirements import namespaces
from testbed.fabric import FabricName, FabricUnavailable, Requirement

_PROGRAMS = {
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "setpriv": "util-linux",
    "mount": "mount",
    "ip": "iproute2",
    "tc": "iproute2",
    "ethtool": "ethtool",
}


def rehearse_scenario(
    name: str,
    *,
    policy: Sequence[str],
    settings: Sequence[str],
    seed: int | None,
    out: Path | None,
    queues: Path | None,
    say: Callable[[str], None],
    elastic: bool = False,
) -> int:
    """Rehearse a scenario at the scale that the emulated fabric would have. Returns its exit code.

    `say` is called, before it begins, with how the scale came about and how long the rehearsal should take.

    Raises `UserError`, and `FabricUnavailable` if this machine lacks what a rehearsal needs.
    """
    missing = [need for need in requirements() if not need.ok]
    if missing:
        raise FabricUnavailable("cluster", missing)
    emulated = load_scenario(name, overrides_of(list(settings), list(policy), seed, FabricName.MININET))
    resolved = resolve(emulated)
    job = resolved.jobs[0]
    if queues is not None:
        try:
            queues.open("w").close()  # or it would be found out when the run has begun
        except OSError as error:
            raise UserError(f"--queues {queues}: {error.strerror}") from None
    if out is None:
        out = new_directory(f"rehearsal-{emulated.name}")
    with results_directory(out, emulated.name):
        pass  # its `mfs run` would find out what is wrong with it when the servers are there
    arguments = [name if name in builtin_scenarios() else os.path.abspath(os.path.expanduser(name))]
    for spec in policy:
        arguments += ["--policy", spec]
    scale = job.scale
    for setting in (
        *settings,
        f"scale.time_dilation={scale.time_dilation!r}",
        f"scale.bytes_scale={scale.bytes_scale!r}",
    ):
        arguments += ["--set", setting]
    if seed is not None:
        arguments += ["--seed", str(seed)]
    for note in (*resolved.scale_notes, duration_note(resolved.jobs)):
        say(note)
    try:
        return rehearse(
            Rehearsal(
                network=Network(topology=job.topology, scale=scale),
                arguments=tuple(arguments),
                out=str(out.absolute()),
                queues=where(queues),
                elastic=elastic,
            )
        )
    finally:
        with contextlib.suppress(OSError):  # there are results in it
            out.rmdir()


def requirements() -> list[Requirement]:
    """What a rehearsal needs on this machine."""
    found = [
        Requirement(
            name="root",
            ok=os.geteuid() == 0,
            detail="yes" if os.geteuid() == 0 else "namespaces and queues need root",
            fix="" if os.geteuid() == 0 else "run the same command with sudo",
        )
    ]
    for program, package in _PROGRAMS.items():
        path = shutil.which(program)
        fix = "" if path else f"apt-get install -y --no-install-recommends {package}"
        found.append(
            Requirement(name=program, ok=path is not None, detail=path or "not on the PATH", fix=fix)
        )
    if os.geteuid() == 0:  # another user needs root first, and is told so above
        found.append(namespaces())
    return found
