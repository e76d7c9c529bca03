"""The placement of ranks in words."""

from experiments.resolve.jobs import Resolved, resolve
from experiments.run.placement_text import placement_text
from experiments.scenario.reading import load_scenario, override


def resolved(name: str, *settings: str) -> Resolved:
    return resolve(load_scenario(name, [override(text) for text in settings]))


def test_the_placement_in_words_has_a_line_per_server() -> None:
    lines = placement_text(resolved("quickstart", "topology.servers=5").jobs[0].placement)

    assert lines[0] == "h1: rank 0 (p0, replica 0, ep0), rank 5 (p1, replica 1, ep0)"
    assert lines[3] == "h4: rank 3 (p0, replica 3, ep0), rank 8 (decode, 0)"


def test_the_placement_in_words_has_the_coordinates_a_unit_has() -> None:
    """Stage 0 has ranks 0 to 7: two replicas of two sequence parts of two tensor-parallel ranks. Rank 13 is
    the sixth rank of stage 1: the second rank of replica 1, part 0. Each stage is an expert group."""
    settings = ("units.ranks_per_unit=16", "units.tp=2", "units.sp=2", "units.pp=2", "topology.servers=34")
    lines = placement_text(resolved("quickstart", *settings).jobs[0].placement)

    assert lines[13] == "h14: rank 13 (p0, stage 1, replica 1, part 0, tp 1, ep1)"


def test_the_ranks_of_a_decode_worker_are_told_apart() -> None:
    settings = ("units.decode_ranks=4", "units.decode_tp=2", "topology.servers=12")
    lines = placement_text(resolved("quickstart", *settings).jobs[0].placement)

    assert lines[8:] == [
        "h9: rank 8 (decode, 0, tp 0)",
        "h10: rank 9 (decode, 0, tp 1)",
        "h11: rank 10 (decode, 1, tp 0)",
        "h12: rank 11 (decode, 1, tp 1)",
    ]
