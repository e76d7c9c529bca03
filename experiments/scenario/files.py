"""The files that a scenario names."""

from pathlib import Path

from experiments.scenario.gpu_profile import as_gpu_path
from experiments.scenario.model_file import as_model_path, model_files
from experiments.scenario.scenario import Scenario


def files_of(scenario: Scenario) -> list[Path]:
    """Return the paths of the trace, calibration, model and GPU profile that `scenario` names, if any."""
    named = [
        scenario.workload.path,
        scenario.simulation.calibration,
        as_gpu_path(scenario.gpu, Path.cwd()),
    ]
    model = as_model_path(scenario.model, Path.cwd())
    described = [] if model is None else model_files(Path(model))
    return [Path(name) for name in named if name is not None] + described
