"""`mfs bench`: benchmarks of the scheduler, the simulated fabric and the lanes."""

import enum
import json
from typing import Annotated

import typer
from rich.console import Console

from experiments.cli.endings import told_to_the_user
from experiments.cli.streams import stdout
from experiments.errors import UserError
from workers.options import Device


class _BenchDevice(enum.StrEnum):
    CPU = "cpu"
    CUDA = "cuda"


bench = typer.Typer(help="Time the scheduler, the simulated fabric or the lanes.", no_args_is_help=True)


@bench.command("scheduler")
def bench_scheduler(
    policy: Annotated[
        list[str] | None, typer.Option(metavar="SPEC", help="A policy to time; repeatable. Default: all.")
    ] = None,
    flows: Annotated[
        list[int] | None,
        typer.Option(min=100, help="Number of active flows; repeatable. Default: 100, 1000, 10000."),
    ] = None,
    seconds: Annotated[
        float, typer.Option(min=0.01, max=3600, help="Wall seconds for each policy and number of flows.")
    ] = 1.0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the events.")] = 1,
    exact: Annotated[
        bool, typer.Option("--exact", help="Time policies as on a fabric that keeps their exact order.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
) -> None:
    """Time what an event costs under each policy. If interrupted, print the results so far."""
    with told_to_the_user():
        from experiments.bench import scheduler as timing
        from experiments.bench.scheduler_table import COLUMNS, render

        policies = timing.chosen_policies(policy or [])
        counts = flows or timing.DEFAULT_FLOWS
        cells: list[timing.PolicyCost] = []
        complete = False
        try:
            with Console(stderr=True).status("") as status:
                for cell in timing.measure(
                    policies,
                    counts,
                    seconds=seconds,
                    seed=seed,
                    exact=exact,
                    on_start=lambda name, count: status.update(f"{name}, {count} flows"),
                ):
                    cells.append(cell)
            complete = True
        finally:
            if as_json:
                told = timing.as_json(cells, seconds=seconds, seed=seed, exact=exact, complete=complete)
                print(json.dumps(told, indent=2))
            elif cells:
                stdout(COLUMNS).print(render(cells))


@bench.command("transport")
def bench_transport(
    kib: Annotated[
        list[int] | None,
        typer.Option(
            min=1,
            max=2**20,
            help="Size of messages in KiB; repeatable. Default: 1, 4, 16 ... 262144.",
        ),
    ] = None,
    seconds: Annotated[
        float, typer.Option(min=0.01, max=3600, help="Wall seconds for each size, and at least ten turns.")
    ] = 4.0,
    chunk_kib: Annotated[
        int, typer.Option(min=1, max=2**20, help="Pieces in which lanes send, as workers.chunk_kib.")
    ] = 256,
    verify_share: Annotated[
        float,
        typer.Option(min=0, max=1, help="Share of messages that are checked, as workers.verify_share."),
    ] = 0.0,
    device: Annotated[
        _BenchDevice, typer.Option(help="Where messages are. cuda: two GPUs, and bare is NCCL; untested.")
    ] = _BenchDevice.CPU,
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
) -> None:
    """Time lanes beside bare torch.distributed, in turns. If interrupted, print the results so far."""
    with told_to_the_user():
        from experiments.bench import transport as timing
        from experiments.bench.scheduler import circumstances
        from experiments.bench.transport_table import COLUMNS, render, size
        from experiments.bench.transport_ways import KIB, Measured
        from experiments.bench.transport_ways import as_json as told

        measured: list[Measured] = []
        complete = False
        try:
            with Console(stderr=True).status("starting") as status:
                for one in timing.measure(
                    kib or timing.DEFAULT_KIB,
                    seconds=seconds,
                    chunk_kib=chunk_kib,
                    verify_share=verify_share,
                    device=Device(device.value),
                    on_start=lambda size_kib: status.update(size(size_kib * KIB)),
                ):
                    measured.append(one)
            complete = True
        finally:
            if as_json:
                found = told(
                    measured,
                    **circumstances(),
                    seconds_per_size=seconds,
                    chunk_kib=chunk_kib,
                    verify_share=verify_share,
                    device=device.value,
                    complete=complete,
                )
                print(json.dumps(found, indent=2))
            elif measured:
                stdout(COLUMNS).print(render(measured))


@bench.command("sim")
def bench_sim(
    case: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A case to run; repeatable. Default: all.")
    ] = None,
    against: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TOOL",
            help="Run flow sets, as cases, in our links and in this tool (simgrid, ns.py); repeatable.",
        ),
    ] = None,
    policy: Annotated[
        list[str] | None, typer.Option(metavar="SPEC", help="A policy; repeatable. Default: fair and mfs.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Set a key of every case's scenario; repeatable."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the requests.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
) -> None:
    """Time the simulated fabric on fixed cases. If interrupted, print the results so far."""
    with told_to_the_user():
        if against:
            if policy or settings:
                raise UserError("--against runs bare flows, which have no policy and no scenario to --set")
            _bench_against(against, case or [], seed, as_json)
            return
        from experiments.bench import simulation as timing
        from experiments.bench.simulation_cases import chosen_cases

        cases = chosen_cases(case or [])
        measured: list[timing.MeasuredRun] = []
        complete = False
        try:
            with Console(stderr=True).status("") as status:
                for one in timing.measure(
                    cases,
                    policy or timing.DEFAULT_POLICIES,
                    seed=seed,
                    settings=settings or (),
                    on_start=lambda name, spec: status.update(f"{name}, {spec}"),
                ):
                    measured.append(one)
            complete = True
        finally:
            if as_json:
                print(json.dumps(timing.as_json(measured, seed=seed, complete=complete), indent=2))
            elif measured:
                stdout(timing.COLUMNS).print(timing.render(measured))


def _bench_against(names: list[str], cases: list[str], seed: int, as_json: bool) -> None:
    """Run flow sets in our links and in other tools, and print what has been measured."""
    from experiments.bench import against
    from experiments.bench.against_table import WIDTH, render
    from experiments.bench.flow_sets import chosen_sets

    sets = chosen_sets(cases)
    tools = against.chosen_tools(names)
    told: list[against.ToolRun | against.LeftOut] = []
    complete = False
    try:
        with Console(stderr=True).status("") as status:
            for one in against.compare(
                sets, tools, seed=seed, on_start=lambda name, tool: status.update(f"{name}, {tool}")
            ):
                told.append(one)
        complete = True
    finally:
        if as_json:
            print(json.dumps(against.as_json(told, seed=seed, complete=complete), indent=2))
        elif told:
            stdout(WIDTH).print(render(told))
