"""What a machine adds to what links and plans promise: as it was measured, and as a simulation takes it.

Measured are wall time and bytes on the wire (`experiments.calibrate`); a job has model time and model bytes.
The names are the keys of `simulation.overheads`, whose `_us` become `_ns` in `testbed.job.Overheads`.
"""

from pathlib import Path
from typing import Any

import msgspec

from controller.units import NS_PER_US
from experiments.atomic_file import write_text
from experiments.errors import UserError
from experiments.scenario.simulation import OverheadsSection, SimulationSection
from testbed.job import Overheads, Scale


class Parameter(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A measured overhead: its value, the tenth and the ninetieth percentile of the samples, how many."""

    value: float
    p10: float
    p90: float
    samples: int


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """What `mfs calibrate` writes. `link_mbps` is the rate of a NIC on the wire, `members` the size of the
    process group whose collectives were timed; `parameters` has the keys of `simulation.overheads`.
    `incast` is the share of its goodput that a port has left when several senders meet there: it is no
    parameter, but the reason why there is none for it."""

    link_mbps: float
    members: int
    faithful: bool
    facts: dict[str, str | int | float]
    incast: Parameter
    parameters: dict[str, Parameter]


def write_calibration(path: Path, calibration: Calibration) -> None:
    """Write `calibration` as JSON. Raises `OSError` where that cannot be."""
    write_text(path, msgspec.json.format(msgspec.json.encode(calibration), indent=2).decode() + "\n")


def read_calibration(path: Path) -> Calibration:
    """Raises `UserError` for a file that is not there or that `mfs calibrate` did not write."""
    try:
        calibration = msgspec.json.decode(path.read_bytes(), type=Calibration)
    except OSError as error:
        raise UserError(f"simulation.calibration: {path}: {error.strerror}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UserError(f"simulation.calibration: {path} is no file of `mfs calibrate`: {error}") from None
    unknown = calibration.parameters.keys() - OverheadsSection.model_fields.keys()
    if unknown:
        raise UserError(
            f"simulation.calibration: {path} has {sorted(unknown)[0]!r}, which is no overhead known here"
            f" (known: {', '.join(OverheadsSection.model_fields)})"
        )
    return calibration


def adds_overheads(section: SimulationSection) -> bool:
    """Whether the scenario asks for any."""
    return section.calibration is not None or section.overheads != OverheadsSection()


def overheads_of(section: SimulationSection, scale: Scale) -> Overheads:
    """The overheads the scenario asks for, in model units; what it names itself goes before the file.

    `scale` is that of the machine on which they were, or would be, measured: a permit of 1 ms of wall time
    is 1 ms / `time_dilation` of the model. Raises `UserError` for a file that cannot be used.
    """
    wall: dict[str, float] = {}
    if section.calibration is not None:
        measured = read_calibration(Path(section.calibration)).parameters
        wall |= {name: parameter.value for name, parameter in measured.items()}
    named = section.overheads.model_dump()
    wall |= {name: value for name, value in named.items() if value is not None}
    return in_model_units(wall, scale)


def in_model_units(wall: dict[str, float], scale: Scale) -> Overheads:
    """`wall` has keys of `simulation.overheads`."""
    model: dict[str, Any] = {}
    for name, value in wall.items():
        if name.endswith("_us"):
            model[f"{name.removesuffix('_us')}_ns"] = round(value * NS_PER_US / scale.time_dilation)
        elif name.endswith("_bytes"):
            model[name] = round(value / scale.bytes_scale)
        else:
            model[name] = value
    return Overheads(**model)
