"""Generated workloads have the statistics of the published ones."""

import statistics

import pytest

from experiments.workloads.synthetic import GENERATORS
from experiments.workloads.workload import Workload, mean_prompt_tokens, reuse_share
from testbed.job import Request

SEEDS = range(1, 6)


def generate(kind: str, seed: int, count: int = 1000) -> Workload:
    return GENERATORS[kind](count, seed, "default")


def request(number: int, tokens: int, blocks: tuple[int, ...]) -> Request:
    return Request(
        id=number,
        arrival_ns=0,
        prompt_tokens=tokens,
        output_tokens=1,
        blocks=blocks,
        block_tokens=10,
    )


def test_reuse_is_counted_to_the_first_block_nobody_had() -> None:
    """The second prompt reuses blocks 0 and 1, not 3: 20 of 25 + 35 tokens."""
    first, second = request(0, 25, (0, 1)), request(1, 35, (0, 1, 3))

    assert reuse_share((first, second)) == pytest.approx(20 / 60)
    assert mean_prompt_tokens((first, second)) == 30


@pytest.mark.parametrize(("kind", "tokens", "reuse"), [("conversation", 2000, 0.50), ("agent", 1000, 0.65)])
def test_a_workload_has_its_published_means(kind: str, tokens: int, reuse: float) -> None:
    """The means over five seeds are within 10 % in tokens and 5 percentage points in reuse."""
    made = [generate(kind, seed).requests for seed in SEEDS]

    assert statistics.mean(map(mean_prompt_tokens, made)) == pytest.approx(tokens, rel=0.10)
    assert statistics.mean(map(reuse_share, made)) == pytest.approx(reuse, abs=0.05)


@pytest.mark.parametrize(("kind", "reuse"), [("conversation", 0.50), ("agent", 0.65)])
def test_a_few_requests_come_near_them_too(kind: str, reuse: float) -> None:
    """48 requests start on cold caches, but their reuse is still within 10 percentage points."""
    made = [generate(kind, seed, count=48).requests for seed in SEEDS]

    assert statistics.mean(map(reuse_share, made)) == pytest.approx(reuse, abs=0.10)


@pytest.mark.parametrize("kind", GENERATORS)
def test_a_prompt_has_an_id_for_each_of_its_full_blocks(kind: str) -> None:
    for made in generate(kind, seed=1).requests:
        assert len(made.blocks) == made.prompt_tokens // made.block_tokens
        assert len(set(made.blocks)) == len(made.blocks)


@pytest.mark.parametrize("kind", GENERATORS)
def test_a_block_stands_for_all_that_is_before_it(kind: str) -> None:
    before: dict[int, tuple[int, ...]] = {}
    for made in generate(kind, seed=1).requests:
        for i, block in enumerate(made.blocks):
            assert before.setdefault(block, made.blocks[:i]) == made.blocks[:i]


@pytest.mark.parametrize("kind", GENERATORS)
def test_the_seed_decides(kind: str) -> None:
    assert generate(kind, seed=1) == generate(kind, seed=1)
    assert generate(kind, seed=1).requests != generate(kind, seed=2).requests


def test_nobody_speaks_again_before_two_others_have() -> None:
    """A prompt that continues a conversation comes at least three prompts after its last turn."""
    made = generate("conversation", seed=1).requests
    last_with: dict[int, int] = {}
    gaps = []
    for i, prompt in enumerate(made):
        turn = prompt.blocks[len(prompt.blocks) - 1]
        earlier = [last_with[block] for block in prompt.blocks if block in last_with]
        gaps += [i - max(earlier)] if earlier else []
        last_with[turn] = i
    assert len(gaps) > 300
    assert min(gaps) >= 3


def test_the_steps_of_a_task_share_one_prefix_in_one_burst() -> None:
    workload = generate("agent", seed=1)

    bursts: dict[int, list[Request]] = {}
    for number, made in zip(workload.bursts, workload.requests, strict=True):
        bursts.setdefault(number, []).append(made)
    steps = [burst for burst in bursts.values() if len(burst) > 1]

    assert len(steps) > 100
    assert all(len(burst) in range(4, 9) for burst in steps[:-1])
    assert all(len({made.blocks[0] for made in burst}) == 1 for burst in steps)


def test_the_note_says_what_was_measured() -> None:
    workload = generate("agent", seed=1)

    tokens, reuse = mean_prompt_tokens(workload.requests), reuse_share(workload.requests)
    assert workload.notes == (
        f"agent prompts are generated: {tokens:,.0f} tokens on average, "
        f"{reuse:.0%} of them in a prefix seen before",
    )
