"""Routers, decode choices and the batcher."""

import pytest
from serving_world import prompt

from testbed.job import ServingOptions
from testbed.serving.batcher import take_batch
from testbed.serving.router import UnitView, make_decode_choice, make_router


def test_least_queued_tokens_takes_the_first_of_the_emptiest() -> None:
    router = make_router(_options(router="least-queued-tokens"))
    assert router.choose(_views((30, 0), (10, 0), (10, 99))) == 1


def test_round_robin_takes_turns_whatever_the_load() -> None:
    router = make_router(_options(router="round-robin"))
    assert [router.choose(_views((99, 0), (0, 0))) for _ in range(3)] == [0, 1, 0]


def test_prefix_affinity_prefers_the_longest_prefix() -> None:
    router = make_router(_options(router="prefix-affinity"))
    assert router.choose(_views((0, 0), (60, 32), (50, 64))) == 2


def test_prefix_affinity_breaks_ties_by_queue() -> None:
    router = make_router(_options(router="prefix-affinity"))
    assert router.choose(_views((50, 64), (40, 64), (0, 0))) == 1


def test_prefix_affinity_passes_over_a_unit_a_batch_behind() -> None:
    """The guard is one batch, 100 tokens: 100 more than the least loaded is fine, 101 is not."""
    router = make_router(_options(router="prefix-affinity"))
    assert router.choose(_views((5, 0), (105, 64))) == 1
    assert router.choose(_views((5, 0), (106, 64))) == 0


def test_decode_workers_take_turns() -> None:
    choice = make_decode_choice(_options(decode_choice="round-robin"))
    assert [choice.choose((7, 0)) for _ in range(3)] == [0, 1, 0]


def test_the_least_loaded_decode_worker_is_the_first_with_the_fewest_tokens() -> None:
    choice = make_decode_choice(_options(decode_choice="least-loaded"))
    assert choice.choose((7, 3, 3)) == 1


def test_unknown_names_are_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"unknown router 'random' .*least-queued-tokens"):
        make_router(_options(router="random"))
    with pytest.raises(ValueError, match=r"unknown decode choice 'random' .*round-robin"):
        make_decode_choice(_options(decode_choice="random"))


@pytest.mark.parametrize(
    ("new_tokens", "taken"),
    [
        ((40, 60, 1), 2),  # exactly full
        ((40, 61, 1), 1),  # the second does not fit, and the third does not overtake it
        ((250, 1), 1),  # larger than any batch: by itself
        ((1, 250), 1),
        ((), 0),
    ],
)
def test_a_batch_is_the_head_of_the_queue_up_to_the_budget(new_tokens: tuple[int, ...], taken: int) -> None:
    queue = [prompt(i, 500) for i in range(len(new_tokens))]
    batch = take_batch(queue, lambda request: new_tokens[request.id], 100)
    assert [request.id for request in batch] == list(range(taken))


def _options(router: str = "least-queued-tokens", decode_choice: str = "round-robin") -> ServingOptions:
    return ServingOptions(router=router, max_batch_tokens=100, decode_choice=decode_choice)


def _views(*units: tuple[int, int]) -> list[UnitView]:
    return [UnitView(queued_tokens=queued, cached_tokens=cached) for queued, cached in units]
