"""Rates of links from the counters of their ports."""

import pytest
from result_rows import MS

from controller.flow import Level
from experiments.results.link_rates import counters, link_rates
from testbed.record import LinkSample


def test_link_rates_are_model_rates() -> None:
    def sample(time_ns: int, p2_bytes: int) -> LinkSample:
        sent = (0, 0, p2_bytes, 0, 0, 0, 0, 0)
        return LinkSample(
            time_ns=time_ns, port="h1->s1", sent_bytes=sent, backlog_bytes=(0,) * 8, drops=(0,) * 8
        )

    # 1,000 wire bytes at bytes_scale 0.01 are 100,000 model bytes = 800,000 bits in 1 ms: 0.8 Gb/s.
    samples = [sample(1 * MS, 1000), sample(0, 0), sample(3 * MS, 1000)]
    rate = link_rates(counters(samples), 0.01)["h1->s1"]
    assert rate.time_ns.tolist() == [0, 1 * MS, 3 * MS]
    assert rate.bps[:, Level.P2].tolist() == pytest.approx([0.8e9, 0.0])
    assert not rate.bps[:, Level.P1].any()


def test_one_sample_of_a_link_has_no_rate() -> None:
    only = LinkSample(time_ns=0, port="h1->s1", sent_bytes=(9,) * 8, backlog_bytes=(0,) * 8, drops=(0,) * 8)
    assert link_rates(counters([only]), 1.0) == {}


def test_a_port_without_a_sample_has_sent_nothing_since_its_last() -> None:
    """Port a sends 1,000 bytes in the first and in the last of five milliseconds. It has no samples between,
    where port b, which always sends, has all."""

    def sample(port: str, time_ms: int, p2_bytes: int) -> LinkSample:
        sent = (0, 0, p2_bytes, 0, 0, 0, 0, 0)
        none = (0,) * 8
        return LinkSample(time_ns=time_ms * MS, port=port, sent_bytes=sent, backlog_bytes=none, drops=none)

    own = [sample("a", time, sent) for time, sent in ((0, 0), (1, 1000), (4, 1000), (5, 2000))]
    others = [sample("b", time, 500 * time) for time in range(6)]
    rates = link_rates(counters([*own, *others]), 1.0)
    assert list(rates) == ["a", "b"]
    assert rates["a"].time_ns.tolist() == [0, 1 * MS, 4 * MS, 5 * MS]
    assert rates["a"].bps[:, Level.P2].tolist() == [8e6, 0, 8e6]
    assert rates["b"].bps[:, Level.P2].tolist() == [4e6] * 5


def test_two_samples_of_one_moment_count_once() -> None:
    def sample(time_ns: int) -> LinkSample:
        return LinkSample(
            time_ns=time_ns, port="p", sent_bytes=(time_ns,) * 8, backlog_bytes=(0,) * 8, drops=(0,) * 8
        )

    rate = link_rates(counters([sample(0), sample(1000), sample(1000)]), 1.0)["p"]
    assert rate.time_ns.tolist() == [0, 1000]
    assert rate.bps.tolist() == [[8e9] * 8]
