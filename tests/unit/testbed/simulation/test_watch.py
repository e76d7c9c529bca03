"""Samples of links leave out what does not move."""

import numpy as np
import pytest

from testbed.columns import batches_of
from testbed.record import LinkSample
from testbed.simulation.watch import LinkSamples, moving_samples

NAMES = ("a->s", "s->b", "s->c")


def at(time_ns: int, *p2_bytes: float) -> tuple[int, np.ndarray]:
    """What the three ports had sent at level 2."""
    sent = np.zeros((len(p2_bytes), 8))
    sent[:, 2] = p2_bytes
    return time_ns, sent


@pytest.fixture
def samples() -> LinkSamples:
    """The first port sends from 10 to 20 and from 50 to 60, the second from 20 on, and the third never."""
    moments = (at(0, 0, 0, 0), at(10, 0, 0, 0), at(20, 99.6, 0, 0), at(30, 99.6, 5, 0), at(40, 99.6, 6, 0))
    return moving_samples(NAMES, [*moments, at(50, 99.6, 7, 0), at(60, 300, 8, 0)])


def test_a_port_has_no_sample_in_the_middle_of_a_time_without_change(samples: LinkSamples) -> None:
    found = [(row.time_ns, row.port, row.sent_bytes[2]) for row in samples]
    assert found == [
        (0, "a->s", 0),
        (0, "s->b", 0),
        (0, "s->c", 0),
        (10, "a->s", 0),  # it sends next
        (20, "a->s", 100),  # it has sent
        (20, "s->b", 0),
        (30, "s->b", 5),
        (40, "s->b", 6),
        (50, "a->s", 100),
        (50, "s->b", 7),
        (60, "a->s", 300),
        (60, "s->b", 8),
        (60, "s->c", 0),
    ]


def test_between_the_samples_of_a_port_its_counters_are_what_they_were_with_all_samples(
    samples: LinkSamples,
) -> None:
    own = [(row.time_ns, row.sent_bytes[2]) for row in samples if row.port == "a->s"]
    assert np.interp(range(0, 70, 10), *zip(*own, strict=True)).tolist() == [0, 0, 100, 100, 100, 100, 300]


def test_a_run_of_one_moment_has_all_ports() -> None:
    assert [row.port for row in moving_samples(NAMES, [at(0, 1, 2, 3)])] == list(NAMES)


def test_samples_are_a_sequence_and_columns_of_the_same_rows(samples: LinkSamples) -> None:
    rows = list(samples)
    assert [samples[i] for i in range(len(samples))] == rows
    assert samples[-1] == rows[-1]
    assert samples[2:5] == tuple(rows[2:5])
    with pytest.raises(IndexError):
        samples[len(rows)]
    assert rows[4] == LinkSample(
        time_ns=20,
        port="a->s",
        sent_bytes=(0, 0, 100, 0, 0, 0, 0, 0),
        backlog_bytes=(0,) * 8,
        drops=(0,) * 8,
    )
    in_columns = [one for batch in samples.batches() for one in batch.to_pylist()]
    assert in_columns == [one for batch in batches_of(rows) for one in batch.to_pylist()]
    ports = [one for batch in samples.batches(["port"]) for one in batch.to_pylist()]
    assert ports == [{"port": row.port} for row in rows]
