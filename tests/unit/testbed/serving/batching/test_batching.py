"""Which requests a unit takes first, and which of them may be in one batch."""

import msgspec
import pytest
from serving_world import batches_of, job, placed, prompt

from controller.overload import QueueOrder, RequestControl
from testbed.job import Job, Request
from testbed.serving.batching.rules import BATCHING, LengthAware, Red, Waiting, make_rule
from testbed.serving.system import ServingSystem

RED = Red(1.0, RequestControl(), apart=True)


def waiting(
    number: int, tokens: int, due_ns: int = 0, *, unloaded_ns: int = 0, arrival_ns: int = 0
) -> Waiting:
    request = prompt(number, tokens, arrival_ns=arrival_ns, slo_ns=due_ns - arrival_ns)
    return Waiting(msgspec.structs.replace(request, unloaded_ns=unloaded_ns), tokens)


def ids(requests: list[Request]) -> list[int]:
    return [request.id for request in requests]


def made(batching: str | None, control: RequestControl | None = None) -> Job:
    topology, placement = placed(units=1)
    plain = job(topology, placement)
    serving = msgspec.structs.replace(plain.serving, batching=batching)
    return msgspec.structs.replace(plain, serving=serving, control=control)


# --- by name ----------------------------------------------------------------------------------------


def test_a_rule_that_is_not_there_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"unknown batching 'lifo' \(known: fcfs, deadline, red, length"):
        ServingSystem(made("lifo"))


def test_every_rule_has_a_line_about_it() -> None:
    assert all(rule.description for rule in BATCHING.values())


def test_request_control_decides_only_where_the_scenario_does_not() -> None:
    """Due at 100, 400, 300 and 200 s, 8 tokens each, two to a batch; there is time for all."""
    queue = [prompt(i, 8, slo_ns=due * 10**9) for i, due in ((1, 100), (2, 400), (3, 300), (4, 200))]
    by_deadline = [[1, 4], [3, 2]]
    in_order = [[1, 2], [3, 4]]
    red = RequestControl(prune=False)
    assert batches_of(made(None), *queue) == in_order
    assert batches_of(made(None, red), *queue) == by_deadline
    assert batches_of(made("fcfs", red), *queue) == in_order
    assert batches_of(made("deadline"), *queue) == by_deadline
    assert batches_of(made("deadline", RequestControl(order=QueueOrder.FCFS)), *queue) == by_deadline


# --- red --------------------------------------------------------------------------------------------


def test_who_would_be_too_late_is_not_in_a_batch_with_who_is_in_time() -> None:
    """At 50 request 1, due at 40, is lost. The others end at 60 and 70, before their RED."""
    queue = [waiting(1, 10, 40), waiting(2, 10, 200), waiting(3, 10, 300)]
    assert ids(RED.candidates(50, queue)) == [2, 3]
    assert ids(RED.candidates(50, queue[:1])) == [1]


def test_a_batch_is_closed_before_it_would_end_after_its_red() -> None:
    """A token takes 1 ns. 10 and 10 tokens end at 20, before the RED of (30, 40), 35. With the 70 of the
    third they would end at 90; (30, 40, 200) is split into (30, 40) and (200), RED 2/3 x 30 + 1/3 x 200 =
    86. With 60 they end at 80, in time."""
    early = [waiting(1, 10, 30), waiting(2, 10, 40)]
    assert ids(RED.candidates(0, [*early, waiting(3, 70, 200)])) == [1, 2]
    assert ids(RED.candidates(0, [*early, waiting(3, 60, 200)])) == [1, 2, 3]


def test_the_first_of_a_batch_is_taken_however_long_it_is() -> None:
    assert ids(RED.candidates(0, [waiting(1, 500, 30)])) == [1]


def test_up_to_the_drop_budget_is_given_up_and_comes_before_the_lost() -> None:
    """Turns of 10 ns, unloaded TTFT 5. By deadline, 5, 6, 7 and 8 are due: the first ends at 5, in time,
    and the others' turns come at 10. 0.5 of five gives up two of them; request 9, due at 1, is lost."""
    rule = Red(1.0, RequestControl(drop_budget=0.5), apart=True)
    late = [waiting(i, 10, i, unloaded_ns=5) for i in (5, 6, 7, 8)]
    lost = waiting(9, 10, 1, unloaded_ns=5)
    # The fourth is kept, but the batch of it and the first would end at 20, after their RED.
    assert ids(rule.candidates(0, [lost, *late])) == [5]
    apart = Red(1.0, RequestControl(drop_budget=0.5), apart=False)
    assert ids(apart.candidates(0, [lost, *late])) == [5, 8, 6, 7, 9]


# --- length-aware -----------------------------------------------------------------------------------


def test_a_short_prompt_goes_before_a_long_one_that_came_up_to_four_of_its_times_before() -> None:
    """1 ns per token: short ones overtake the long one if they arrive within 4 x 100 - 4 x 10 = 360 ns."""
    rule = LengthAware(1.0, 1)
    long = waiting(1, 100)
    assert ids(rule.candidates(500, [long, waiting(2, 10, arrival_ns=359)])) == [2]
    assert ids(rule.candidates(500, [long, waiting(2, 10, arrival_ns=361)])) == [1]


def test_no_request_waits_for_ever() -> None:
    """A short prompt comes every 20 ns and takes 10: the long one's turn is at 4 x 100, after those of the
    18 that arrive before 360. The one that arrives at 360 ties with the long one, which came first."""
    rule = LengthAware(1.0, 1)
    queue = [waiting(0, 100)]
    served = []
    for number in range(1, 40):
        queue.append(waiting(number, 10, arrival_ns=(number - 1) * 20))
        first = rule.candidates(number * 20, queue)[0]
        served.append(first.id)
        queue = [w for w in queue if w.request.id != first.id]
    assert served.index(0) == 18


def test_prompts_of_a_batch_are_within_a_factor_of_two_of_each_other() -> None:
    """By length: 10, 20, 21, 40, all there at 0. 21 and 40 are more than twice 10."""
    queue = [waiting(1, 40), waiting(2, 21), waiting(3, 20), waiting(4, 10)]
    assert ids(LengthAware(1.0, 1).candidates(0, queue)) == [4, 3]
    assert ids(LengthAware(1.0, 1).candidates(0, queue[:2])) == [2, 1]


def test_short_prompts_are_all_alike() -> None:
    """If lengths count as at least 16, 1 to 32 are similar."""
    queue = [waiting(1, 33), waiting(2, 32), waiting(3, 7), waiting(4, 1)]
    assert ids(LengthAware(1.0, 16).candidates(0, queue)) == [4, 3, 2]


def test_a_unit_takes_similar_prompts_together() -> None:
    """With at most 16 tokens, lengths below 1 count as 1: 2 and 4 are similar, 16 is not."""
    queue = [prompt(1, 16), prompt(2, 4), prompt(3, 2)]
    assert batches_of(made("length-aware"), *queue) == [[3, 2], [1]]


def test_rules_that_need_no_estimate_make_none() -> None:
    assert make_rule(made(None), "p0").candidates(0, [waiting(2, 8), waiting(1, 8)])[0].id == 2
