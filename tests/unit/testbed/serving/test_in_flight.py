"""Where requests are, and how many have met their SLO so far."""

from testbed.job import Request
from testbed.live import RequestsNow
from testbed.serving.in_flight import InFlight
from testbed.serving.story import RequestStory
from workers.plan import RequestPlan

MS = 1_000_000


def request(id: int, *, arrival_ms: int = 0, warmup: bool = False) -> Request:
    """Return a request with an SLO of 100 ms."""
    return Request(
        id=id,
        arrival_ns=arrival_ms * MS,
        prompt_tokens=4,
        output_tokens=1,
        blocks=(),
        block_tokens=4,
        slo_ns=100 * MS,
        unloaded_ns=20 * MS,
        slo_class="default",
        warmup=warmup,
    )


def story(batch: str, *, last: bool = True) -> RequestStory:
    plan = RequestPlan(
        request=0,
        replica=(0,),
        decode_ranks=(8,),
        new_tokens=4,
        local_tokens=0,
        remote_tokens=0,
        p2d_flows=(1,),
        decode_step_s=0.01,
        deadline_ns=0,
        last=last,
    )
    return RequestStory(plan=plan, batch=batch, unit="p0")


def test_a_request_is_queued_until_a_batch_has_it_and_prefills_until_its_last_part_is_computed() -> None:
    """0 is in no batch, 1 in a batch that runs. The first part of 2 is computed and the second is to come.
    3 is computed. 4 has not arrived."""
    requests = InFlight(5)
    for id in range(4):
        requests.arrived(request(id))
    stories = {1: story("runs"), 2: story("over", last=False), 3: story("over")}
    assert requests.at(50 * MS, stories, {"runs"}) == RequestsNow(
        total=5, queued=1, prefilling=2, decoding=1, done=0, met=0, missed=0
    )


def test_a_request_has_missed_its_slo_once_its_deadline_has_passed() -> None:
    """0 takes 100 ms, 1 takes 101 ms. 2 arrived at 50 ms and has no first token at 150 ms, its deadline."""
    requests = InFlight(3)
    for id, arrival_ms in enumerate((0, 0, 50)):
        requests.arrived(request(id, arrival_ms=arrival_ms))
    requests.first_token(0, 100 * MS)
    requests.first_token(1, 101 * MS)

    def met_and_missed(now_ms: int) -> tuple[int, int]:
        now = requests.at(now_ms * MS, {}, ())
        return now.met, now.missed

    assert met_and_missed(150) == (1, 1)
    assert met_and_missed(151) == (1, 2)
    requests.first_token(2, 160 * MS)
    assert met_and_missed(160) == (1, 2)


def test_the_warm_up_counts_as_done_but_not_for_the_slo() -> None:
    requests = InFlight(2)
    requests.arrived(request(0, warmup=True))
    requests.arrived(request(1, warmup=True))
    requests.first_token(0, MS)
    now = requests.at(500 * MS, {}, ())
    assert (now.done, now.queued, now.met, now.missed) == (1, 1, 0, 0)
