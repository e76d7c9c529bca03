"""The overheads of a machine: as `experiments.calibrate` measures them, and as a simulation needs them.

Measured overheads are in wall time and bytes on the wire, those of a job in model time and model bytes.
Their names are the keys of `simulation.overheads`. In `testbed.job.Overheads`, `_ns` replaces `_us`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from pydantic import ValidationError

from controller.units import NS_PER_US
from experiments.atomic_file import write_text
from experiments.errors import UserError
from experiments.named_file import named_bytes
from experiments.scenario.problems import problem_line
from experiments.scenario.scenario import Scenario
from experiments.scenario.simulation import OverheadsSection, SimulationSection
from testbed.job import Overheads, Scale

_MOST_BYTES = 2**20


class Parameter(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A measured overhead: its value, the 10th and 90th percentiles of the samples, and their number."""

    value: float
    p10: float
    p90: float
    samples: int


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """The content of the file that `mfs calibrate` writes.

    `link_mbps` is the rate of a NIC on the wire, and `members` the size of the process group whose
    collectives were timed. `parameters` has the keys of `simulation.overheads`. `incast` is the share of
    its goodput that a port keeps when several senders meet there. It shows whether incast costs anything;
    a simulation does not use it.
    """

    link_mbps: float
    members: int
    faithful: bool
    facts: dict[str, str | int | float]
    incast: Parameter
    parameters: dict[str, Parameter]


def write_calibration(path: Path, calibration: Calibration) -> None:
    """Write `calibration` as JSON. Raises `OSError` if the file cannot be written."""
    write_text(path, msgspec.json.format(msgspec.json.encode(calibration), indent=2).decode() + "\n")


def read_calibration(path: Path) -> Calibration:
    """Read a calibration. Raises `UserError` if the file is missing, if `mfs calibrate` did not write it,
    or if a value is out of the range of its key in `simulation.overheads`."""
    raw = named_bytes(path, most_bytes=_MOST_BYTES, source=f"simulation.calibration: {path}")
    try:
        calibration = msgspec.json.decode(raw, type=Calibration)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"simulation.calibration: {path} is not a file of `mfs calibrate`: {error}") from None
    unknown = calibration.parameters.keys() - OverheadsSection.model_fields.keys()
    if unknown:
        raise UserError(
            f"simulation.calibration: {path} has {sorted(unknown)[0]!r}, which is not a known overhead"
            f" (known: {', '.join(OverheadsSection.model_fields)})"
        )
    _check_ranges(calibration.parameters, path)
    return calibration


def _check_ranges(parameters: Mapping[str, Parameter], path: Path) -> None:
    """Raise `UserError` for values that the same keys of a scenario refuse: they are checked as those are."""
    values = {name: parameter.value for name, parameter in parameters.items()}
    try:
        OverheadsSection.model_validate(values, strict=True)
    except ValidationError as error:
        above = ("simulation", "overheads")
        found = [problem | {"loc": (*above, *problem["loc"])} for problem in error.errors()]
        place = f"simulation.calibration: {path}"
        raise UserError("\n".join(problem_line(problem, {}, place) for problem in found)) from None


def adds_overheads(section: SimulationSection) -> bool:
    """Return whether the scenario asks for overheads."""
    return section.calibration is not None or section.overheads != OverheadsSection()


def overheads_of(scenario: Scenario, scale: Scale) -> Overheads:
    """Return the overheads that the scenario asks for, in model units.

    Keys of `simulation.overheads` override the file `simulation.calibration`. `scale` is that of an
    emulated run on the machine where the overheads were measured: a permit latency of 1 ms in wall time is
    1 ms / `time_dilation` in model time. Raises `UserError` for a file that cannot be used.
    """
    wall: dict[str, float] = {}
    section = scenario.simulation
    if section.calibration is not None:
        try:
            measured = read_calibration(Path(section.calibration)).parameters
        except UserError as error:
            raise UserError(f"scenario {scenario.name}: {error}") from None
        wall |= {name: parameter.value for name, parameter in measured.items()}
    named = section.overheads.model_dump()
    wall |= {name: value for name, value in named.items() if value is not None}
    return in_model_units(wall, scale)


def in_model_units(wall: dict[str, float], scale: Scale) -> Overheads:
    """Convert `wall`, which has keys of `simulation.overheads`, to model time and model bytes."""
    model: dict[str, Any] = {}
    for name, value in wall.items():
        if name.endswith("_us"):
            model[f"{name.removesuffix('_us')}_ns"] = round(value * NS_PER_US / scale.time_dilation)
        elif name.endswith("_bytes"):
            model[name] = round(value / scale.bytes_scale)
        else:
            model[name] = value
    return Overheads(**model)
