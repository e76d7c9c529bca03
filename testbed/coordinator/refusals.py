"""What a job can ask of the simulated fabric only, refused by name."""

from testbed.fabric import JobRefused
from testbed.job import Job
from testbed.serving.routing.decode_choices import reads_ports_now


def refuse_simulated_only(job: Job) -> None:
    """Raise `JobRefused`, naming the key, for an order or a decode choice that needs a simulated network."""
    if job.simulation.hybrid:
        raise JobRefused(
            "simulation.order: hybrid needs servers that keep an exact order; only the simulated fabric has"
            " them"
        )
    if job.requests and not job.plans and reads_ports_now(job.serving.decode_choice):
        raise JobRefused(
            f"serving.decode: {job.serving.decode_choice} has to know what flows have left on ports now;"
            " only the simulated fabric does"
        )
