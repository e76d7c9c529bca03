"""The micro experiments of a calibration."""

from experiments.calibrate.micro_jobs import collective_job
from workers.plan import Collective


def test_every_collective_comes_after_a_barrier_and_a_pause() -> None:
    job = collective_job(15, 4, "fair")
    for layer in job.plans[0].layers[:-1]:
        assert [step.label.split(".")[0] for step in layer.steps] in (
            ["pause", "barrier", "pause", "all-to-all"],
            ["pause", "barrier", "pause", "all-reduce"],
        )


def test_the_bytes_in_a_label_are_those_a_member_sends() -> None:
    for members in (2, 4, 8):
        for layer in collective_job(15, members, "fair").plans[0].layers[:-1]:
            step = layer.steps[-1]
            assert isinstance(step, Collective)
            sent = sum(step.sent_by(0, members).values())
            assert sent == int(step.label.split(".")[1])
