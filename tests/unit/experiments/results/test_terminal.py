"""What a terminal shows at the end of a run."""

import msgspec
from record_factory import micro_record, serving_record, unfaithful
from rich.console import Console

from experiments.results.summary import Summary, summarise
from experiments.results.terminal import render_summary, trace_lines
from testbed.job import Scale
from testbed.record import RunRecord


def summary_of(*records: RunRecord) -> Summary:
    return summarise(
        scenario="small",
        fabric="mininet",
        seed=3,
        scale=Scale(time_dilation=30, bytes_scale=0.001),
        records=records,
    )


def printed(summary: Summary) -> str:
    console = Console(width=80, color_system=None)
    with console.capture() as capture:
        console.print(render_summary(summary))
    return capture.get()


def test_a_serving_run_fits_a_terminal_of_80_columns() -> None:
    text = printed(summary_of(serving_record("fair", requests=6), serving_record(requests=6)))
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 80
    assert "…" not in text  # rich marks a cut cell with it
    (fair,) = [line for line in text.splitlines() if line.strip().startswith("fair ")]
    cells = fair.split()
    assert (cells[1], cells[-1]) == ("5/6", "yes")
    assert len(cells) == 11
    assert "faithful: every check is within its bounds" in text


def test_a_long_policy_takes_several_lines_and_no_digit_from_the_numbers() -> None:
    spec = "mfs(layer_boundary=off, monotonic=off) + requests(prune=off)"
    record = serving_record()
    short, long = (printed(summary_of(msgspec.structs.replace(record, policy=p))) for p in ("mfs", spec))
    numbers = next(line.split()[1:] for line in short.splitlines() if line.startswith("mfs"))
    assert "…" not in long
    assert all(number in long for number in numbers)


def test_an_unfaithful_run_says_which_check_failed_and_what_to_change() -> None:
    text = " ".join(printed(summary_of(serving_record(requests=4, fidelity=unfaithful()))).split())
    assert "mfs is not faithful: CPU headroom is 0.04, wanted >= 0.10." in text
    assert "Raise scale.time_dilation." in text
    assert "every check is within" not in text


def test_a_micro_run_is_a_table_of_flows() -> None:
    text = printed(summary_of(micro_record("fair"), micro_record("mfs")))
    (line,) = [line for line in text.splitlines() if line.split()[:2] == ["mfs", "low"]]
    assert "321 ms" in line
    assert "P6 to P1" in line


def test_a_late_micro_flow_is_told_with_how_late_it_was() -> None:
    """ "low" is due at 400 ms and finishes at 321 ms, and 130 ms later in the second run."""
    record = micro_record("late")
    late = tuple(
        msgspec.structs.replace(flow, finish_ns=flow.finish_ns + 130_000_000) for flow in record.flows
    )
    text = printed(summary_of(micro_record("fair"), msgspec.structs.replace(record, flows=late)))
    found = {tuple(line.split()[:2]): line for line in text.splitlines() if line.split()}
    assert "0 s" in found["fair", "low"].split("321 ms", 2)[2]
    assert "51.0 ms" in found["late", "low"]
    assert "fair: S3 on average 0 s late and 79.0 ms early" in text
    assert "late: S3 on average 51.0 ms late and 0 s early" in text


def test_traces_that_show_a_part_are_told_once_for_all_policies() -> None:
    summary = summary_of(serving_record("fair", requests=6), serving_record("mfs", requests=6))
    fair, mfs = summary["runs"]
    assert not [*trace_lines(summary)]
    mfs["trace_shows"] = "what was under way from 1 s to 2 s"
    [of_mfs] = trace_lines(summary)
    assert of_mfs.startswith("the trace of mfs shows only a part of the run")
    fair["trace_shows"] = "what was under way from 0 s to 1 s"
    [of_both] = trace_lines(summary)
    assert of_both.startswith("the trace of every policy shows only a part of the run")


def test_what_nothing_used_is_told() -> None:
    summary = summary_of(micro_record("fair")) | {"unused": ["no flow crossed NIC h9"]}
    assert "no flow crossed NIC h9" in printed(summary)
