"""`mfs calibrate`: measures the overheads of this machine by micro experiments.

There are three runs of the emulated fabric: transfers, collectives whose levels stay, and collectives whose
levels change.
"""

from functools import partial

from rich.table import Table
from rich.text import Text

from experiments.calibrate.fit import Port, TooFewSamples, fit_collectives, fit_links
from experiments.calibrate.micro_jobs import MEMBERS, Experiment, collective_job, transfer_job
from experiments.fitted_table import FittedTable
from experiments.resolve.calibration import Calibration, Parameter
from experiments.run.all_jobs import RunListener, run_job
from experiments.scenario.simulation import OverheadsSection
from testbed.fabric import Fabric, FabricUnavailable, RunFailed
from testbed.fabrics import missing_of
from testbed.record import RunRecord

SENDERS = 4
"""Number of servers that send to one server at once in the incast experiment."""


def calibrate(fabric: Fabric, *, link_mbps: float, members: int, progress: RunListener) -> Calibration:
    """Measure the overheads of `fabric` on links of `link_mbps`, in groups of `members` ranks.

    `progress` gets the name of each experiment and how far it is. Raises what `run_job` raises,
    `FabricUnavailable` if something is missing, and `RunFailed` if an experiment left too few samples.
    """
    missing = missing_of(fabric)
    if missing:
        raise FabricUnavailable(fabric.name, missing)
    link_bps = link_mbps * 1e6
    experiments = {
        Experiment.TRANSFERS: transfer_job(link_mbps, SENDERS),
        Experiment.COLLECTIVES: collective_job(link_mbps, members, "fair"),
        Experiment.LEVEL_CHANGES: collective_job(link_mbps, members, "sjf"),
    }
    records: dict[Experiment, RunRecord] = {
        name: run_job(fabric, job, partial(progress, name)) for name, job in experiments.items()
    }
    kept, changed = records[Experiment.COLLECTIVES], records[Experiment.LEVEL_CHANGES]
    try:
        links = fit_links(records[Experiment.TRANSFERS].flows, link_bps)
        collectives = fit_collectives(
            list(kept.flows),
            list(changed.flows),
            kept.spans,
            kept.requests,
            port=Port(links.goodput.value * link_bps, links.burst_bytes.value),
            members=members,
        )
    except TooFewSamples as error:
        raise RunFailed(f"the calibration failed: {error}") from error
    measured = {name: getattr(part, name) for part in (links, collectives) for name in part.__struct_fields__}
    return Calibration(
        link_mbps=link_mbps,
        members=members,
        faithful=all(record.fidelity.faithful for record in records.values()),
        facts={
            **kept.facts,
            "broken_checks": "; ".join(
                f"{name}: {check.name}"
                for name, record in records.items()
                for check in record.fidelity.checks
                if not check.ok
            ),
        },
        incast=links.incast,
        parameters={
            name: measured[name]
            for name in OverheadsSection.model_fields
            if isinstance(measured.get(name), Parameter)
        },
    )


def members_for(largest_group: int) -> int:
    """Return the group size to calibrate with for collectives among `largest_group` ranks."""
    return max((count for count in MEMBERS if count <= largest_group), default=MEMBERS[0])


def calibration_table(calibration: Calibration) -> Table:
    """Return a table with a line per overhead: value and spread, in wall time or bytes on the wire."""
    title = f"overheads on {calibration.link_mbps:g} Mb/s links, groups of {calibration.members}"
    table = FittedTable(title=Text(title), gap=2)
    table.add_column("simulation.overheads", no_wrap=True)
    for heading in ("value", "p10", "p90", "samples"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, parameter in calibration.parameters.items():
        table.add_row(name, *_cells(name, parameter))
    table.add_row("(share left by incast)", *_cells("incast", calibration.incast))
    return table


def _cells(name: str, parameter: Parameter) -> tuple[str, ...]:
    decimals = 0 if name.endswith(("_us", "_bytes")) else 3
    values = (parameter.value, parameter.p10, parameter.p90)
    return (*(f"{value:.{decimals}f}" for value in values), str(parameter.samples))
