"""The scale of real layers: their bytes are not scaled, so time has to give."""

import pytest

from experiments.resolve.jobs import Resolved, resolve
from experiments.resolve.scale import work_s
from experiments.scenario.reading import load_scenario, override
from testbed.job import Scale


def resolved(*settings: str) -> Resolved:
    texts = ["fabric=mininet", "scale.time_dilation=null", "scale.bytes_scale=null", *settings]
    return resolve(load_scenario("real-layers", [override(text) for text in texts]))


def scale(*settings: str) -> Scale:
    return resolved(*settings).jobs[0].scale


def test_time_is_stretched_until_a_nic_is_slow_enough() -> None:
    """20 Mb/s at 2 Mb/s, and at 3 Mb/s 6.67, rounded up to two digits. The work itself needs less."""
    assert scale("scale.link_mbps=2", "scale.wall_s=0.1") == Scale(time_dilation=10.0, bytes_scale=1.0)
    assert scale("scale.link_mbps=3", "scale.wall_s=0.1") == Scale(time_dilation=6.7, bytes_scale=1.0)


def test_a_run_that_takes_longer_than_the_bound_says_so_and_why() -> None:
    """A NIC of 2 Gb/s at 15 Mb/s at most: 133.3, rounded up to two digits. `wall_s` is 60."""
    settings = ("topology.nic_gbps=2", "workload.requests=4")
    found = resolved(*settings)
    [note] = found.scale_notes
    takes = f"a policy takes about {140 * work_s(found.jobs[0]):.0f} s"
    assert f"140 wall seconds (so that a NIC runs at 15 Mb/s at most; {takes}, which is beyond" in note
    assert "beyond scale.most_wall_s (240 s) because the bytes of real layers are not scaled: lower" in note
    [note] = resolved(*settings, "scale.most_wall_s=1000").scale_notes
    assert f"; {takes}), a NIC runs at" in note


def test_time_is_stretched_more_if_the_work_is_to_take_longer() -> None:
    """The NIC is then slower than it need be."""
    found = scale("scale.link_mbps=15", "scale.wall_s=600")
    assert found.bytes_scale == 1.0
    assert found.time_dilation > 20 / 15


def test_a_time_dilation_that_is_given_stays() -> None:
    assert scale("scale.time_dilation=3", "scale.link_mbps=2") == Scale(time_dilation=3.0, bytes_scale=1.0)


def test_bytes_are_scaled_without_real_layers() -> None:
    """2 Mb/s are a tenth of 20."""
    found = scale("workers.compute=timed", "scale.link_mbps=2", "scale.time_dilation=1")
    assert found.bytes_scale == pytest.approx(0.1)
