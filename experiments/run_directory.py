"""Reading a run directory back: the summary, the resolved scenario and each policy's rows."""

import json
from pathlib import Path

import msgspec
import pyarrow as pa

from experiments.errors import UserError
from experiments.result_tables import Tables, read_tables
from experiments.summary import Summary


class RunDirectory(msgspec.Struct, frozen=True, kw_only=True):
    """A run read back: its summary, its resolved scenario, and each policy's rows."""

    path: Path
    summary: Summary
    scenario_yaml: str
    tables: dict[str, Tables]


def read_run(path: Path) -> RunDirectory:
    """Read what `write_run` wrote. Raises `UserError` for anything that is not such a directory."""
    try:
        summary = json.loads((path / "summary.json").read_text(encoding="utf-8"))
        return RunDirectory(
            path=path,
            summary=summary,
            scenario_yaml=(path / "scenario.yaml").read_text(encoding="utf-8"),
            tables={run["policy"]: read_tables(path, run["policy"]) for run in summary["runs"]},
        )
    except FileNotFoundError as error:
        missing = Path(error.filename).name if error.filename else str(error)
        raise UserError(f"{path} is not the directory of a finished run: it holds no {missing}") from error
    except KeyError as error:
        raise UserError(f"{path / 'summary.json'} lacks the key {error}: not a summary of ours") from error
    except (ValueError, TypeError, pa.ArrowException, OSError) as error:
        raise UserError(f"{path} cannot be read as a run directory: {error}") from error
