"""Background transfers with which a run would not end are refused, and ports that they fill are named."""

import pytest

from experiments.errors import UserError
from experiments.resolve.jobs import Resolved, resolve
from experiments.scenario.reading import load_scenario, override

GBPS, MB = "workload.background.gbps", "workload.background.transfer_mb"


def resolved(*settings: str) -> Resolved:
    texts = ["fabric=sim", *settings]
    return resolve(load_scenario("quickstart", [override(text) for text in texts]))


def test_more_background_transfers_than_can_be_simulated_are_refused_with_a_size_that_is_taken() -> None:
    settings = (f"{GBPS}=20", "workload.requests=4")
    with pytest.raises(UserError, match=rf"{MB}: 0.001 at {GBPS} 20 is about") as refused:
        resolved(*settings, f"{MB}=0.001")
    least_mb = str(refused.value).split("it takes transfers of ")[1].split()[0]
    assert resolved(*settings, f"{MB}={least_mb}")


def test_the_same_transfers_at_a_lower_rate_are_few_enough() -> None:
    assert resolved(f"{GBPS}=0.1", f"{MB}=0.001", "workload.requests=4")


def test_static_may_not_put_transfers_that_fill_a_port_before_a_stage_that_crosses_it() -> None:
    """Eight pairs of 20 Gb/s send to two decode ranks, whose ports carry 50: 80 Gb/s each."""
    with pytest.raises(UserError, match=r"before S3, and they would fill port s1->h9 \(80 Gb/s of 50\)"):
        resolved(f"{GBPS}=20", "policies=[fair, static(background=1)]")


@pytest.mark.parametrize(
    "settings",
    [
        (f"{GBPS}=12", "policies=[static(background=1)]"),  # 48 Gb/s of 50
        (f"{GBPS}=20", "policies=[static]"),
        (f"{GBPS}=20", "policies=['static(s3=1, background=1)']"),
        (f"{GBPS}=20", "policies=['static(background=1, weights=1:1:1:1)']"),
        (f"{GBPS}=20", "policies=[static(background=1)]", "simulation.separate=true"),
        (f"{GBPS}=20", "policies=[static(background=1)]", "simulation.overheads.level_share=0.02"),
    ],
)
def test_transfers_that_leave_stages_something_are_taken(settings: tuple[str, ...]) -> None:
    assert resolved(*settings)


def test_a_port_that_the_transfers_fill_is_named() -> None:
    assert any("fill port s1->h9: 80 Gb/s of 50" in note for note in resolved(f"{GBPS}=20").warnings)
    assert not any("fill port" in note for note in resolved(f"{GBPS}=12").warnings)
