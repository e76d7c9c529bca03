"""Turns of a conversation: when the answer before is complete, and when the turn arrives.

The decode steps are those of `test_decoding`: a step reads 640 bytes of weights and 32 bytes for each token
before, at 1,000 bytes/s.
"""

import random

import msgspec
import pytest
from serving_world import DENSE, GPU, job, placed, prompt

from experiments.resolve.jobs import resolve
from experiments.scenario.reading import load_scenario, override
from testbed.fabrics import FABRICS
from testbed.job import Job, Request
from testbed.record import RunRecord
from testbed.serving.actions import Announce
from testbed.serving.answers import Answers
from testbed.serving.conductor import ServingConductor
from testbed.serving.decoding import DecodeWorker, Decoding, last_tokens_ns
from testbed.serving.replay import plans_of

READER = msgspec.structs.replace(GPU, peak_flops=1e12)
MS = 1_000_000
S = 1000 * MS


def turn(number: int, *, after: int | None = None, pause_ns: int = 0, **changes: int) -> Request:
    return msgspec.structs.replace(prompt(number, 10), after=after, pause_ns=pause_ns, **changes)


def world(*requests: Request, decode_batch: int | None = None) -> Job:
    made = msgspec.structs.replace(job(*placed(model=DENSE), model=DENSE), requests=requests, gpu=READER)
    serving = msgspec.structs.replace(made.serving, decode_batch=decode_batch)
    return msgspec.structs.replace(made, serving=serving)


def test_without_decoding_the_first_token_stands_for_the_answer() -> None:
    first, second = turn(1, output_tokens=3), turn(2, after=1)

    answers = Answers(world(first, second))

    assert answers.first_token(first, 4, 70) == {1: 70}
    assert answers.due_ns is None


def test_with_decoding_an_answer_ends_with_its_last_token() -> None:
    """Two more tokens take 640 + 10 x 32 = 960 ms and 640 + 11 x 32 = 992 ms: together 1952 ms.

    Before it is looked at, two steps like the first are the least it can take: 1920 ms.
    """
    first = turn(1, output_tokens=3)
    answers = Answers(world(first, turn(2, after=1), decode_batch=8))

    assert answers.first_token(first, 4, 0) == {}
    assert answers.due_ns == 1920 * MS
    assert answers.complete(1920 * MS) == {}
    assert answers.due_ns == 1952 * MS
    assert answers.complete(1952 * MS) == {1: 1952 * MS}
    assert answers.due_ns is None


def test_an_answer_that_nobody_waits_for_makes_no_work_but_slows_the_others_down() -> None:
    """From 960 ms on, the step of the first has the second in it: 640 + 32 x (11 + 5) = 1152 ms."""
    first, other = turn(1, output_tokens=3), turn(3, output_tokens=2, prompt_tokens=5)
    answers = Answers(world(first, turn(2, after=1), other, decode_batch=8))

    answers.first_token(first, 4, 0)
    answers.first_token(other, 4, S // 2)

    ends = {}
    while answers.due_ns is not None:
        ends |= answers.complete(answers.due_ns)
    assert ends == {1: 2112 * MS, 3: 2112 * MS}


def test_nothing_is_decoded_for_a_job_without_turns() -> None:
    only = turn(1, output_tokens=3)
    answers = Answers(world(only, decode_batch=8))

    answers.first_token(only, 4, 0)
    assert answers.due_ns is None


@pytest.mark.parametrize("seed", range(20))
def test_steps_that_are_taken_bit_by_bit_are_those_of_the_whole_run(seed: int) -> None:
    draw = random.Random(seed)
    requests = [
        Decoding(
            request=i,
            first_token_ns=draw.randrange(20) * 400 * MS,
            prompt_tokens=draw.randint(1, 40),
            output_tokens=draw.randint(2, 9),
        )
        for i in range(12)
    ]
    most = draw.randint(1, 4)
    worker = DecodeWorker(model=DENSE, gpu=READER, most=most)
    to_come = sorted(requests, key=lambda r: (r.first_token_ns, r.request))
    ends: dict[int, int] = {}
    now_ns = 0
    while len(ends) < len(requests):
        due_ns = worker.earliest_end_ns(range(12))
        if to_come and (due_ns is None or to_come[0].first_token_ns <= due_ns):
            now_ns = to_come[0].first_token_ns
            worker.join(to_come.pop(0))
            ends |= worker.advance(now_ns)
            continue
        assert due_ns is not None
        assert due_ns > now_ns  # otherwise a run would not get on
        now_ns = due_ns
        ended = worker.advance(now_ns)
        assert all(end_ns <= now_ns for end_ns in ended.values())
        ends |= ended

    assert ends == last_tokens_ns(requests, model=DENSE, gpu=READER, most=most)


def answered(conductor: ServingConductor, request: int, at_ns: int) -> None:
    """Let the only waiting request run as a batch by itself, and have its first token at `at_ns`."""
    due_ns = conductor.due_ns
    assert due_ns is not None
    (announced,) = conductor.act(due_ns)
    assert isinstance(announced, Announce)
    conductor.known(announced.batch.id)
    for rank in announced.ranks:
        conductor.rank_done(at_ns, announced.batch.id, rank, 0, at_ns)
    conductor.first_token(at_ns, request, at_ns)


def test_a_turn_arrives_after_the_answer_and_its_pause_and_its_slo_counts_from_then() -> None:
    conductor = ServingConductor(world(turn(1), turn(2, after=1, pause_ns=30)))

    assert conductor.due_ns == 0
    answered(conductor, 1, 400)
    assert conductor.due_ns == 430
    assert not conductor.under_way
    answered(conductor, 2, 500)

    assert conductor.finished
    rows = conductor.request_rows({}, ())
    assert [(row.arrival_ns, row.ttft_ns) for row in rows] == [(0, 400), (430, 70)]


def test_a_turn_with_a_time_of_its_own_does_not_arrive_before_it() -> None:
    conductor = ServingConductor(world(turn(1), turn(2, after=1, pause_ns=30, arrival_ns=9000)))

    answered(conductor, 1, 400)
    assert conductor.due_ns == 9000


def conversations(decode_batch: str) -> Job:
    """Eight requests of quickstart, each of the last four a turn after one of the first four."""
    texts = ("fabric=sim", 'policies=["fair"]', "workload.requests=8", f"serving.decode_batch={decode_batch}")
    made = resolve(load_scenario("quickstart", [override(text) for text in texts])).jobs[0]
    requests = tuple(
        msgspec.structs.replace(r, after=r.id - 4, pause_ns=5 * MS, arrival_ns=0) if r.id >= 4 else r
        for r in made.requests
    )
    return msgspec.structs.replace(made, requests=requests)


def played(made: Job) -> RunRecord:
    return FABRICS["sim"]().run(made, lambda progress: None)


@pytest.mark.parametrize("decode_batch", ["null", "8"])
def test_a_simulated_run_holds_each_turn_back_until_its_answer(decode_batch: str) -> None:
    rows = {row.request: row for row in played(conversations(decode_batch)).requests}

    for number in range(4, 8):
        before = rows[number - 4]
        answer_ns = before.first_token_ns if decode_batch == "null" else before.last_token_ns
        assert answer_ns is not None
        assert rows[number].arrival_ns == answer_ns + 5 * MS


def test_a_run_with_turns_can_be_replayed() -> None:
    made = conversations("null")
    record = played(made)

    again = played(msgspec.structs.replace(made, plans=plans_of(made, record.requests)))

    assert again.requests == record.requests
