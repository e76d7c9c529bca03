"""The testbed from Python: the commands `mfs run`, `sweep`, `compare`, `plot` and `table` as functions.

    import mfs

    run = mfs.run("quickstart", fabric="sim", policies=["fair", "mfs"])
    print(run.verdict)
    requests = run.requests.to_pandas()

Each function takes what its command takes, and does the same. Errors are exceptions, and nothing is printed
unless `progress=True`. `docs/reference/python.md` describes all of it.
"""

from mfs._own_rooms import refuse_others

refuse_others()

from experiments.errors import UserError  # noqa: E402 - only once it is known whose `experiments` this is
from mfs.comparison import Comparison, compare  # noqa: E402
from mfs.figures import Plot, plot, table  # noqa: E402
from mfs.results import Run, Sweep, load  # noqa: E402
from mfs.running import run, sweep  # noqa: E402
from testbed.fabric import FabricUnavailable, JobRefused, RunFailed  # noqa: E402

__all__ = [
    "Comparison",
    "FabricUnavailable",
    "JobRefused",
    "Plot",
    "Run",
    "RunFailed",
    "Sweep",
    "UserError",
    "compare",
    "load",
    "plot",
    "run",
    "sweep",
    "table",
]
