"""Reading back a run directory. Rows stay in their files until they are needed."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import pyarrow as pa

from experiments.errors import UserError
from experiments.named_file import named_text
from experiments.results.checksums import MOST_BYTES, SUMMARY, check_files, read_json
from experiments.results.distributions import Distributions, read_distributions
from experiments.results.parquet import TABLES, Tables, read_tables
from experiments.results.summary import Summary

SCENARIO: Final = "scenario.yaml"
_CURVES: Final = "distributions.json"


class _Timing(msgspec.Struct, frozen=True, kw_only=True):
    """What is read of `timing.json`, which has no digest: it differs between equal runs."""

    command: str = ""
    started: str | None = None
    wall_s: dict[str, float] = {}


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
        check_files(path, [SUMMARY])
        summary = read_json(path / SUMMARY)
        curves = [f"{run['folder']}/{_CURVES}" for run in summary["runs"]]
        check_files(path, [SCENARIO, *(f"{name}.parquet" for name in TABLES.values()), *curves])
        return RunDirectory(
            path=path,
            summary=summary,
            timing=_timing(path / "timing.json"),
            scenario_yaml=named_text(path / SCENARIO, most_bytes=MOST_BYTES),
            tables={run["policy"]: read_tables(path, run["policy"]) for run in summary["runs"]},
            distributions={
                run["policy"]: read_distributions(path / run["folder"] / _CURVES) for run in summary["runs"]
            },
        )
    except KeyError as error:
        raise UserError(f"{path / 'summary.json'} lacks the key {error}: not a summary of ours") from error
    except (ValueError, TypeError, AttributeError, pa.ArrowException, OSError) as error:
        raise UserError(f"{path} cannot be read as a run directory: {error}") from error


def _timing(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    content: dict[str, Any] = msgspec.to_builtins(msgspec.convert(read_json(path), _Timing))
    return content
