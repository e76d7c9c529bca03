"""Running scenarios: `mfs run` and `mfs sweep` from Python."""

import contextlib
import os
import shlex
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from experiments.cli.progress_display import display_for, sweep_display_for
from experiments.inventory.fabric import made_fabric
from experiments.results.paired import WINDOW
from experiments.results.trace_window import Window
from experiments.run.run import run_scenario
from experiments.scenario.overrides import overrides_of
from experiments.scenario.reading import load_scenario
from experiments.sweep.plan import Over, checked_over, make_plan
from experiments.sweep.run import run_sweep
from mfs.results import Run, Source, Sweep
from mfs.settings import as_listed, plain_value, settings_texts
from testbed.fabrics import Chosen, chosen


def run(
    scenario: Source,
    *,
    policies: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
    seed: int | None = None,
    fabric: str | None = None,
    inventory: Source | None = None,
    out: Source | None = None,
    ceiling: bool = False,
    trace_window: tuple[float, float | None] | None = None,
    jobs: int = 1,
    retry: int = 0,
    elastic: bool = False,
    progress: bool = False,
) -> Run:
    """Run a scenario, every policy on the same requests, and return the results.

    Args:
        scenario: A scenario by name, or a YAML file.
        policies: Policies to run instead of the scenario's.
        settings: Values of keys of the scenario: `{"workload.load": 0.8}`.
        seed: Seed of everything drawn at random.
        fabric: `mininet`, `sim`, `cluster`, or `auto` for `mininet` if it can run here; by default the
            scenario's.
        inventory: The servers of the fabric `cluster`, as a YAML file.
        out: Directory for the results, new or empty; by default a new one in `runs/`.
        ceiling: Run the requests without a network, too: what no policy can exceed.
        trace_window: The part of the run that the traces show, from and to in model seconds (None: to the
            end); by default the part that the command shows.
        jobs: Policies simulated at once, each in a process of its own if there are several.
        retry: How often an emulated run begins again while it is not faithful and another scale would make
            it so.
        elastic: If a rank or a server of the fabric `cluster` dies, begin the policy again without its unit.
        progress: Show the progress on standard error.

    What makes the results say less than they seem to is a warning (`UserWarning`).

    Raises:
        UserError: For what the user can correct. The message names options as the command has them.
        FabricUnavailable: If the machine lacks what the fabric needs.
        JobRefused: If the job is too large for the machine.
        RunFailed: If the run ended and its numbers would be worthless.
        ValueError: For a `trace_window` that ends before it begins.
    """
    texts, name = settings_texts(settings), os.fspath(scenario)
    options = _options(policies=policies, settings=texts)
    checked = load_scenario(name, overrides_of(texts, policies, seed, fabric))
    choice = _warned(chosen(checked.fabric))
    words = ["mfs", "run", name, *options, "--fabric", choice.name]
    words += [] if inventory is None else ["--inventory", os.fspath(inventory)]
    words += ["--elastic"] if elastic else []
    words += [] if seed is None else ["--seed", str(seed)]
    servers = None if inventory is None else Path(inventory)
    resolved = checked.model_copy(update={"fabric": choice.name})
    window = None
    if trace_window is not None:
        start_s, end_s = trace_window
        text = f"{start_s}:{'' if end_s is None else end_s}"
        window = Window.read(text)
        words += ["--trace-window", text]
    with (
        _safe_children(),
        made_fabric(resolved, servers, warnings.warn, elastic=elastic) as made,
        _shown(progress) as console,
        display_for(console) as display,
    ):
        directory, _ = run_scenario(
            resolved,
            fabric=made,
            out=None if out is None else Path(out),
            progress=display.update,
            command=shlex.join([*words, *(["--ceiling"] if ceiling else [])]),
            notes=[] if choice.note is None else [choice.note],
            warn=lambda text: warnings.warn(text, stacklevel=4),
            ceiling=ceiling,
            trace_window=window,
            jobs=jobs,
            retries=retry,
        )
    return Run(directory)


def sweep(
    scenario: Source,
    *,
    over: Mapping[str, Iterable[Any]],
    policies: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
    fabric: str = "sim",
    out: Source | None = None,
    jobs: int | None = None,
    backend: str = "loky",
    keep: Literal["summary", "tables"] = "summary",
    ceiling: bool = False,
    progress: bool = False,
) -> Sweep:
    """Run a scenario at every combination of values, in parallel, and return the results.

    Args:
        over: The values of each swept key: `{"workload.load": [0.4, 0.8], "seed": range(1, 9)}`.
            `{"window": range(8)}` takes eight windows of a trace.
        out: Directory for the results; new, empty, or this sweep's, to continue it.
        jobs: Cells to run at once; by default as many as there are cores.
        backend: joblib's engine: `loky` for this machine, `ray` or `dask` for a cluster.
        keep: What a cell keeps: its summary, or its tables, trace and report too.
        ceiling: Run the requests without a network, too, and say how much of the gap policies close.

    The others are those of `run`. Cells that fail are a warning and are in `Sweep.failed`; the others go on.

    Raises:
        UserError: For what the user can correct. The message names options as the command has them.
        FabricUnavailable: If the machine lacks what the fabric needs.
        RunFailed: If a worker process died.
    """
    if keep not in ("summary", "tables"):
        raise ValueError(f"keep={keep!r}: 'summary' or 'tables'")
    texts, name = settings_texts(settings), os.fspath(scenario)
    swept = [_over(key, values) for key, values in over.items()]
    ranges = [f"{one.key}={_listed(one)}" for one in swept]
    words = ["mfs", "sweep", name, *_options(policies=policies, settings=texts, over=ranges)]
    choice = _warned(chosen(fabric))
    plan = make_plan(name, over=swept, settings=texts, policies=policies, fabric=choice.name, ceiling=ceiling)
    words += ["--fabric", choice.name, *([] if out is None else ["--out", os.fspath(out)])]
    words += ["--keep", keep] if keep != "summary" else []
    words += ["--ceiling"] if ceiling else []
    with _safe_children(), _shown(progress) as console, sweep_display_for(console) as display:
        directory, content = run_sweep(
            plan,
            out=None if out is None else Path(out),
            tables=keep == "tables",
            jobs=jobs,
            backend=backend,
            progress=display.update,
            words=words,
        )
    found = Sweep(directory)
    if failed := found.failed:
        first, error = next(iter(failed.items()))
        warnings.warn(
            f"{len(failed)} of {len(content['cells'])} cells failed; {first}: {error.splitlines()[0]}",
            stacklevel=2,
        )
    return found


def _listed(over: Over) -> str:
    return str(len(over.values)) if over.key == WINDOW else ",".join(map(as_listed, over.values))


def _over(key: str, values: Iterable[Any]) -> Over:
    if isinstance(values, str):
        raise TypeError(f"over[{key!r}]: a list of values, not the text {values!r}")
    listed = [plain_value(value) for value in values]
    return checked_over(key, listed, f"--over {key}={','.join(map(as_listed, listed))}")


def _options(
    *, policies: Sequence[str] = (), settings: Sequence[str] = (), over: Sequence[str] = ()
) -> list[str]:
    """Return the options of the command line that stand for these arguments."""
    if isinstance(policies, str):
        raise TypeError(f"policies: a list of policies, not the text {policies!r}")
    pairs = [("--over", one) for one in over]
    pairs += [("--policy", one) for one in policies] + [("--set", one) for one in settings]
    return [word for pair in pairs for word in pair]


def _warned(choice: Chosen) -> Chosen:
    if choice.note is not None:
        warnings.warn(choice.note, stacklevel=3)
    return choice


@contextlib.contextmanager
def _shown(progress: bool) -> Iterator[Console]:
    """Yield a console on standard error, which shows nothing unless `progress` is set."""
    yield Console(stderr=True, quiet=not progress)


@contextlib.contextmanager
def _safe_children() -> Iterator[None]:
    """Keep processes that a run starts from importing what lies in the working directory.

    A queue.py there would replace Python's own.
    """
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONSAFEPATH"]
        else:
            os.environ["PYTHONSAFEPATH"] = before
