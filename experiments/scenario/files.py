"""The files that a scenario names."""

from pathlib import Path

from experiments.scenario.gpu_profile import as_gpu_path
from experiments.scenario.model_file import as_model_path, model_files
from experiments.scenario.scenario import Scenario
from testbed.topology import TopologyKind


def files_of(scenario: Scenario) -> list[Path]:
    """Return the paths of the files that `scenario` names, such as a trace, a network or a model."""
    named = [
        scenario.workload.path,
        scenario.simulation.calibration,
        scenario.topology.path if scenario.topology.kind is TopologyKind.FILE else None,
        as_gpu_path(scenario.gpu, Path.cwd()),
    ]
    model = as_model_path(scenario.model, Path.cwd())
    described = [] if model is None else model_files(Path(model))
    return [Path(name) for name in named if name is not None] + described
