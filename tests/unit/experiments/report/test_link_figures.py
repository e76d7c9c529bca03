"""How busy links were, from samples that leave out what does not move."""

from pathlib import Path

import msgspec
import numpy as np
from record_factory import micro_record

from controller.flow import Level
from experiments.report.link_figures import LinkLoad, link_loads
from experiments.report.series import series_of
from experiments.results.reading import read_run
from experiments.results.writing import write_run
from testbed.job import Scale
from testbed.record import LinkSample
from testbed.simulation.watch import moving_samples

MS = 1_000_000


def load(out: Path, links: object) -> LinkLoad:
    record = msgspec.structs.replace(micro_record(), links=links, duration_ns=240 * MS)
    write_run(
        out,
        scenario="s",
        fabric="sim",
        seed=1,
        scale=Scale(time_dilation=1, bytes_scale=1),
        resolved_yaml="",
        notes=[],
        records=[record],
        placement_text=[],
    )
    (found,) = link_loads(series_of([read_run(out)]))
    return found


def test_a_link_is_as_busy_as_with_all_samples(tmp_path: Path) -> None:
    """Link a sends 1 MB in the first millisecond and 1 MB in the last two of 240, so 8 Gb/s and 4 Gb/s.
    Link b sends a byte in each."""
    names = ("a", "b")
    sent = np.zeros((241, 2, 8))
    sent[1:, 0, Level.P2] = 1e6
    sent[239:, 0, Level.P2] += (5e5, 1e6)
    sent[:, 1, Level.P4] = np.arange(241)
    rows = [
        LinkSample(
            time_ns=moment * MS,
            port=names[port],
            sent_bytes=tuple(map(int, sent[moment, port])),
            backlog_bytes=(0,) * 8,
            drops=(0,) * 8,
        )
        for moment in range(241)
        for port in range(2)
    ]
    moving = moving_samples(names, [(moment * MS, sent[moment]) for moment in range(241)])
    assert len(moving) == 241 + 5  # link a has samples at 0, 1, 238, 239 and 240 ms
    all_of_them, those_that_move = load(tmp_path / "all", rows), load(tmp_path / "moving", moving)
    for port in names:
        assert (all_of_them.gbps[port] == those_that_move.gbps[port]).all()
    bins = len(those_that_move.edges) - 1
    a = those_that_move.gbps["a"][Level.P2]
    assert a[0] * 240 / bins == 8
    assert not a[1 : -1 - round(2 * bins / 240)].any()
    assert np.isclose(a.sum() * 240 / bins, 16)
