"""Seeded prompts with the published statistics of two workloads of LLM serving.

`conversation`: people talk with an assistant. A prompt is a system prompt (one of a few), all earlier
messages and answers, and the new message. It has about 2,000 tokens on average, half of them seen before.

`agent`: programs plan a task and then work on all of its steps at once. The prompt of a step is the agent's
instructions and tools, the plan, and the step. It has about 1,000 tokens, 65 % of them seen before, and the
steps of a task share one prefix at the same time.

These averages are those that MFS v1 reports for its workloads. Everything else (lognormal lengths, turns,
steps) is ours, with constants chosen to meet the averages.
"""

import math
import random
from collections.abc import Callable

import msgspec

from experiments.scenario.workload import WorkloadKind
from experiments.workloads.workload import Workload, mean_prompt_tokens, reuse_share
from testbed.job import Request

BLOCK_TOKENS = 64
_OUTPUT_TOKENS = 250


class DrawnLengths(msgspec.Struct, frozen=True):
    """Lognormal token counts of this mean, at least 8. `sigma` is the deviation of their logarithm."""

    mean: float
    sigma: float = 0.6

    def draw(self, source: random.Random) -> int:
        mu = math.log(self.mean) - self.sigma**2 / 2
        return max(8, round(source.lognormvariate(mu, self.sigma)))


class _Text(msgspec.Struct, frozen=True):
    """A text that prompts begin with: its length in tokens, and the ids of its full blocks."""

    tokens: int
    blocks: tuple[int, ...]


class _Writer:
    """Makes texts. A block that no earlier text has gets the next id."""

    def __init__(self) -> None:
        self._next_block = 0

    def extend(self, text: _Text, tokens: int) -> _Text:
        """Append `tokens` new tokens to `text`. The block that `text` leaves unfinished gets a new id."""
        total = text.tokens + tokens
        new = total // BLOCK_TOKENS - len(text.blocks)
        blocks = text.blocks + tuple(range(self._next_block, self._next_block + new))
        self._next_block += new
        return _Text(total, blocks)

    def start(self, tokens: int) -> _Text:
        return self.extend(_Text(0, ()), tokens)


def conversation(count: int, seed: int, slo_class: str) -> Workload:
    """Return `count` prompts of people in conversations, in order. Their arrivals, 0, are set later."""
    draw, writer = random.Random(f"{seed}:conversation"), _Writer()
    system_prompts = [writer.start(DrawnLengths(300, sigma=0.2).draw(draw)) for _ in range(4)]
    message, answer = DrawnLengths(780), DrawnLengths(_OUTPUT_TOKENS)
    live: list[_Text] = []
    prompts: list[tuple[_Text, int]] = []
    while len(prompts) < count:
        # The last two still wait for their answers, so another one speaks next.
        rested = live[:-2]
        if rested and draw.random() < 0.48:
            said = live.pop(draw.randrange(len(rested)))
        else:
            said = draw.choice(system_prompts)
            if len(live) == 12:
                live.pop(0)
        prompt, reply = writer.extend(said, message.draw(draw)), answer.draw(draw)
        prompts.append((prompt, reply))
        live.append(writer.extend(prompt, reply))
    return _workload(WorkloadKind.CONVERSATION, prompts, slo_class)


def agent(count: int, seed: int, slo_class: str) -> Workload:
    """Return `count` prompts of agents, in order. Their arrivals, 0, are set later.

    A plan is a burst by itself, and the steps of a task are one burst.
    """
    draw, writer = random.Random(f"{seed}:agent"), _Writer()
    instructions = [writer.start(DrawnLengths(350, sigma=0.2).draw(draw)) for _ in range(3)]
    plan, step, answer = (
        DrawnLengths(400, sigma=0.4),
        DrawnLengths(300),
        DrawnLengths(_OUTPUT_TOKENS),
    )
    planned: list[_Text] = []
    prompts: list[tuple[_Text, int]] = []
    bursts: list[int] = []
    while len(prompts) < count:
        burst = bursts[-1] + 1 if bursts else 0
        # Three tasks are in progress at a time, so that a plan has its answer before its steps are asked.
        if len(planned) < 3:
            planned.append(writer.extend(draw.choice(instructions), plan.draw(draw)))
            together = [planned[-1]]
        else:
            task = planned.pop(0)
            together = [writer.extend(task, step.draw(draw)) for _ in range(draw.randint(4, 8))]
        together = together[: count - len(prompts)]
        prompts += [(prompt, answer.draw(draw)) for prompt in together]
        bursts += [burst] * len(together)
    return msgspec.structs.replace(_workload(WorkloadKind.AGENT, prompts, slo_class), bursts=tuple(bursts))


def _workload(kind: WorkloadKind, prompts: list[tuple[_Text, int]], slo_class: str) -> Workload:
    requests = tuple(
        Request(
            id=i,
            arrival_ns=0,
            prompt_tokens=prompt.tokens,
            output_tokens=reply,
            blocks=prompt.blocks,
            block_tokens=BLOCK_TOKENS,
            slo_class=slo_class,
        )
        for i, (prompt, reply) in enumerate(prompts)
    )
    note = (
        f"{kind} prompts are generated: {mean_prompt_tokens(requests):,.0f} tokens on average, "
        f"{reuse_share(requests):.0%} of them in a prefix seen before"
    )
    return Workload(requests=requests, notes=(note,))


GENERATORS: dict[WorkloadKind, Callable[[int, int, str], Workload]] = {
    WorkloadKind.CONVERSATION: conversation,
    WorkloadKind.AGENT: agent,
}
