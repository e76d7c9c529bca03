"""The scale at which a run would have been faithful, and the command for it."""

from experiments.results.cure import command_at, cure_of, settings_of
from testbed.job import Scale
from testbed.record import Check

NOW = Scale(time_dilation=36.0, bytes_scale=0.0108)


def check(*, ok: bool = False, dilation: float | None = None, slower: float | None = None) -> Check:
    return Check(
        name="a", value=1.0, bound="<= 1", unit="", ok=ok, advice="", dilation=dilation, slower=slower
    )


def test_a_faithful_run_needs_no_other_scale() -> None:
    assert cure_of([check(ok=True)], NOW) is None


def test_delays_that_are_twice_too_long_need_more_time_at_the_same_rate() -> None:
    """36 * 2 * 1.25 = 90. A byte is 2.5 times as many bytes on the wire, so links are as fast as before."""
    cure = cure_of([check(dilation=2.0), check(dilation=1.5), check(ok=True)], NOW)
    assert cure == Scale(time_dilation=90.0, bytes_scale=0.027)
    assert settings_of(cure) == ["scale.time_dilation=90", "scale.bytes_scale=0.027"]


def test_links_that_delivered_too_little_become_slower_in_the_same_time() -> None:
    """0.0108 / (2 * 1.25)."""
    assert cure_of([check(slower=2.0)], NOW) == Scale(time_dilation=36.0, bytes_scale=0.00432)


def test_real_bytes_are_not_scaled_so_time_makes_links_slower_too() -> None:
    """5.1 * 1.2 * 1.25 = 7.65, rounded up to two digits; 5.1 * 2 * 1.25 = 12.75."""
    now = Scale(time_dilation=5.1, bytes_scale=1.0)
    assert cure_of([check(slower=1.2)], now, real_bytes=True) == Scale(time_dilation=7.7, bytes_scale=1.0)
    both = [check(slower=1.2), check(dilation=2.0)]
    assert cure_of(both, now, real_bytes=True) == Scale(time_dilation=13.0, bytes_scale=1.0)


def test_what_no_scale_mends_has_no_cure() -> None:
    assert cure_of([check(dilation=2.0), check()], NOW) is None


def test_the_command_has_the_new_scale_and_no_old_one() -> None:
    words = [
        "mfs", "run", "quickstart", "--set", "scale.wall_s=60", "--policy", "mfs(e=4)", "--out", "there",
        "--set", "seed=3", "--retry", "2", "--retry=1",
    ]  # fmt: skip
    told = command_at(words, ["scale.time_dilation=90"])
    assert told == "mfs run quickstart --policy 'mfs(e=4)' --set seed=3 --set scale.time_dilation=90"
