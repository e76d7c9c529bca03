"""The scale of real layers: their bytes are not scaled, so time has to give."""

import pytest

from experiments.resolve.jobs import resolve
from experiments.scenario.reading import load_scenario, override
from testbed.job import Scale


def scale(*settings: str) -> Scale:
    texts = ["fabric=mininet", "scale.time_dilation=null", "scale.bytes_scale=null", *settings]
    return resolve(load_scenario("real-layers", [override(text) for text in texts])).jobs[0].scale


def test_time_is_stretched_until_a_nic_is_slow_enough() -> None:
    """20 Mb/s at 2 Mb/s, and at 3 Mb/s 6.67, rounded up to two digits. The work itself needs less."""
    assert scale("scale.link_mbps=2", "scale.wall_s=0.1") == Scale(time_dilation=10.0, bytes_scale=1.0)
    assert scale("scale.link_mbps=3", "scale.wall_s=0.1") == Scale(time_dilation=6.7, bytes_scale=1.0)


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
