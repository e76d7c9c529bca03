"""Reading back a run directory. Rows stay in their files until they are needed."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from experiments.errors import UserError
from experiments.results.distributions import Distributions, read_distributions
from experiments.results.ended_early import not_finished
from experiments.results.parquet import Tables, read_tables
from experiments.results.summary import Summary


@dataclass(frozen=True, slots=True, kw_only=True)
class RunDirectory:
    """A run read back: its summary, its resolved scenario, and the rows and curves of each policy.

    `timing` is the content of `timing.json`, empty for a run without one.
    """

    path: Path
    summary: Summary
    timing: dict[str, Any]
    scenario_yaml: str
    tables: dict[str, Tables]
    distributions: dict[str, Distributions]


def read_run(path: Path) -> RunDirectory:
    """Read what `write_run` wrote. Raises `UserError` if `path` is not such a directory."""
    try:
        summary = _json(path / "summary.json")
        timing = path / "timing.json"
        return RunDirectory(
            path=path,
            summary=summary,
            timing=_json(timing) if timing.exists() else {},
            scenario_yaml=(path / "scenario.yaml").read_text(encoding="utf-8"),
            tables={run["policy"]: read_tables(path, run["policy"]) for run in summary["runs"]},
            distributions={
                run["policy"]: read_distributions(path / run["folder"] / "distributions.json")
                for run in summary["runs"]
            },
        )
    except FileNotFoundError as error:
        if told := not_finished(path):
            raise UserError(told) from error
        missing = Path(error.filename).name if error.filename else str(error)
        raise UserError(f"{path} is not the directory of a finished run: it holds no {missing}") from error
    except KeyError as error:
        raise UserError(f"{path / 'summary.json'} lacks the key {error}: not a summary of ours") from error
    except (ValueError, TypeError, pa.ArrowException, OSError) as error:
        raise UserError(f"{path} cannot be read as a run directory: {error}") from error


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
