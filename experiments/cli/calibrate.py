"""`mfs calibrate`: measuring the overheads of the emulated fabric, and how fast a GPU is."""

import enum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from experiments.cli.endings import told_to_the_user
from experiments.cli.options import command_line
from experiments.cli.streams import standard_output_kept_clean, stdout
from experiments.errors import UserError
from testbed.fabric import FabricName


class MeasuredDevice(enum.StrEnum):
    """What `mfs calibrate gpu` measures."""

    AUTO = "auto"
    CUDA = "cuda"
    CPU = "cpu"


calibrate = typer.Typer(invoke_without_command=True)


@calibrate.callback()
def calibrate_fabric(
    context: typer.Context,
    link_mbps: Annotated[
        float, typer.Option(min=1, max=1000, help="Rate of a link on the machine, Mb/s.")
    ] = 15.0,
    members: Annotated[
        int, typer.Option(help="Size of the process group whose collectives are timed: 2, 4 or 8.")
    ] = 4,
    out: Annotated[Path, typer.Option(help="The file to write.")] = Path("calibration.json"),
) -> None:
    """Measure what the emulated fabric adds to ideal links, for `simulation.calibration`.

    `mfs calibrate gpu` measures a GPU instead.
    """
    if context.invoked_subcommand is not None:
        _refuse_options_before(context)
        return
    with told_to_the_user():
        from experiments.calibrate.links import calibrate as measure
        from experiments.calibrate.links import calibration_table
        from experiments.calibrate.micro_jobs import MEMBERS
        from experiments.cli.progress_display import display_for
        from experiments.resolve.calibration import write_calibration
        from testbed.fabrics import FABRICS

        if members not in MEMBERS:
            raise UserError(f"--members {members}: one of {', '.join(map(str, MEMBERS))}")
        if not out.parent.is_dir():
            raise UserError(f"--out {out}: there is no directory {out.parent}")
        with standard_output_kept_clean(), display_for(Console(stderr=True)) as display:
            calibration = measure(
                FABRICS[FabricName.MININET](), link_mbps=link_mbps, members=members, progress=display.update
            )
        write_calibration(out, calibration)
        stdout().print(calibration_table(calibration))
        if not calibration.faithful:
            print(f"not faithful: {calibration.facts['broken_checks']}")
        print(f"calibration: {out}")


@calibrate.command("gpu")
def calibrate_gpu(
    device: Annotated[
        MeasuredDevice, typer.Option(help="What to measure; auto: the CUDA device of this machine.")
    ] = MeasuredDevice.AUTO,
    model: Annotated[
        str, typer.Option(metavar="NAME|FILE", help="The model whose kernels are timed.")
    ] = "mixtral-8x7b",
    out: Annotated[Path, typer.Option(help="The profile to write.")] = Path("gpu.yaml"),
) -> None:
    """Measure how much of its peak rates a GPU reaches with real kernels, for the scenario key `gpu`."""
    with told_to_the_user():
        from experiments.scenario.model_file import model_from_option

        if not out.parent.is_dir():
            raise UserError(f"--out {out}: there is no directory {out.parent}")
        shape = model_from_option(model)

        # Imported late, because PyTorch takes seconds to import.
        from experiments.atomic_file import write_text
        from experiments.calibrate import gpu as gpus
        from experiments.scenario.gpu_profile import profile_text

        bench = gpus.open_bench(device.value)
        with Console(stderr=True).status("") as status:
            measured = gpus.measure(bench, shape, on_start=status.update)
        write_text(out, profile_text(measured.gpu, gpus.comments(measured, command_line())))
        gpu = measured.gpu
        print(f"a layer of {measured.model} on {gpu.measured}")
        stdout().print(gpus.profile_table(measured))
        print(
            f"{gpu.efficiency:.0%} of {gpu.peak_flops / 1e12:.4g} TFLOP/s, {gpu.memory_efficiency:.0%} of "
            f"{gpu.memory_bytes_per_s / 1e9:.4g} GB/s, {gpu.launch_s * 1e6:.3g} us a launch"
        )
        print(f"profile: {out}")


def _refuse_options_before(context: typer.Context) -> None:
    """Refuse options of `mfs calibrate` itself before a subcommand, which would ignore them."""
    for name in context.params:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            option = f"--{name.replace('_', '-')}"
            with told_to_the_user():
                raise UserError(f"{option}: write options after `calibrate {context.invoked_subcommand}`")
