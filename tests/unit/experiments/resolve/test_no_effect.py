"""Keys that are set and change nothing in a run are named, each with the reason."""

from pathlib import Path

import pytest
from trace_files import AZURE, bailian, trace

from experiments.resolve.jobs import resolve
from experiments.scenario.reading import builtin_scenarios, load_scenario, override

IN_MODEL = "the simulated fabric runs in model time and bytes"
NO_BYTES = "the simulated fabric moves no real bytes"


def in_vain(scenario: str, *settings: str) -> list[str]:
    texts = ["fabric=sim", *settings]
    notes = resolve(load_scenario(scenario, [override(text) for text in texts])).warnings
    return [note for note in notes if "no effect" in note]


@pytest.mark.parametrize("name", builtin_scenarios())
def test_every_key_of_our_own_scenarios_has_an_effect(name: str) -> None:
    real = ["workers.compute: no effect, ranks of the simulated fabric compute nothing"]
    assert in_vain(name) == (real if name.startswith("real-layers") else [])


@pytest.mark.parametrize(
    ("scenario", "setting", "with_effect", "told"),
    [
        ("quickstart", "topology.spines=4", "topology.kind=leaf-spine", "in a star topology"),
        ("quickstart", "simulation.order=exact", "fabric=sim", "on the emulated fabric"),
        (
            "quickstart",
            "simulation.paths=least-loaded",
            "topology.kind=leaf-spine",
            "in a star there is one path",
        ),
        ("two-flows", "units.tp=2", None, "kind flows has no requests and no serving system"),
        ("two-flows", "model=dbrx", None, "kind flows has no requests and no serving system"),
        ("two-flows", "workload.time_scale=2", None, "kind flows has no requests and no serving system"),
        ("coflow-small", "workload.requests=2", None, "kind coflows has no requests and no serving system"),
        ("coflow-small", "slo.multiple=2", None, "kind coflows has no requests and no serving system"),
        ("two-flows", "workers.compute=model", None, "kind flows has no requests and no serving system"),
        (
            "quickstart",
            "workers.compute=model",
            "fabric=mininet",
            "ranks of the simulated fabric compute nothing",
        ),
        ("quickstart", "workload.skip=3", None, "the requests are generated, not read from a trace"),
        ("quickstart", "serving.router=random", "units.prefill_units=2", "there is one prefill unit"),
        ("quickstart", "serving.reuse=cheaper", "units.prefill_units=2", "there is one replica"),
        (
            "quickstart",
            "serving.fetch_ahead=1",
            "serving.reuse=cheaper",
            "nothing is fetched (serving.reuse)",
        ),
        ("quickstart", "serving.decode=least-loaded", "units.decode_ranks=2", "there is one decode worker"),
        ("quickstart", "units.sequence=ulysses", "units.sp=2", "no sequence is split (units.sp)"),
        ("quickstart", "serving.all_reduce=tree", "units.tp=2", "there is no tensor parallelism (units.tp)"),
        (
            "quickstart",
            "units.layout=packed",
            "units.ranks_per_server=2",
            "each rank has a server of its own",
        ),
        (
            "quickstart",
            "simulation.progress_ms=2",
            'policies=["fair", "pias"]',
            "none of the policies reads the progress of flows",
        ),
        ("quickstart", "units.expert_skew=1", "model=mixtral-8x7b", "llama-3-8b has no experts"),
        (
            "quickstart",
            "units.expert_groups=strided",
            "units={tp: 2, ep: 2}",
            "there is no tensor parallelism (units.tp)",
        ),
        (
            "quickstart",
            "scale.wall_s=9",
            "fabric=mininet",
            "the simulated fabric runs in model time and bytes",
        ),
        ("quickstart", "workers.chunk_kib=9", "fabric=mininet", NO_BYTES),
        (
            "quickstart",
            "workers.verify_share=1",
            "fabric=mininet",
            "the simulated fabric moves no real bytes",
        ),
        (
            "quickstart",
            "workload.background.pairs=migrate",
            "workload.background.gbps=1",
            "there are no background transfers (workload.background.gbps)",
        ),
        ("two-flows", "scale.wall_s=9", "scale.time_dilation=null", "scale.time_dilation is given"),
        ("two-flows", "scale.link_mbps=9", "scale.bytes_scale=null", "scale.bytes_scale is given"),
        ("quickstart", "serving.preempt_layers=32", "model=mixtral-8x22b", "mixtral-8x7b has 32 layers"),
    ],
)
def test_a_key_without_effect_is_named_with_the_reason(
    scenario: str, setting: str, with_effect: str | None, told: str
) -> None:
    """The reason holds until `with_effect` takes it away."""
    without = {
        "on the emulated fabric": ["fabric=mininet"],
        "scale.time_dilation is given": ["fabric=mininet"],
        "scale.bytes_scale is given": ["fabric=mininet"],
        "there is one prefill unit": ["units.prefill_units=1"],
        "there is one replica": ["units.prefill_units=1", "units.ranks_per_unit=1"],
        "nothing is fetched (serving.reuse)": ["serving.reuse=recompute"],
        "there is one decode worker": ["units.decode_ranks=1"],
        "llama-3-8b has no experts": ["model=llama-3-8b"],
    }
    settings = [*without.get(told, []), setting]
    assert in_vain(scenario, *settings) == [f"{setting.partition('=')[0]}: no effect, {told}"]
    if with_effect is not None:
        assert in_vain(scenario, *settings, with_effect) == []


def test_the_reference_of_a_multiple_means_nothing_to_absolute_slos() -> None:
    absolute = ["slo.multiple=null", "slo.absolute_s=1", "slo.reference=mean"]
    assert in_vain("quickstart", *absolute) == [
        "slo.reference: no effect, no SLO is a multiple of the unloaded TTFT"
    ]
    assert in_vain("quickstart", "slo.reference=mean") == []


def test_keys_with_one_reason_share_a_line() -> None:
    assert in_vain("quickstart", "topology.spines=4", "topology.k=8", "topology.oversubscription=2") == [
        "topology.spines, topology.k, topology.oversubscription: no effect, in a star topology"
    ]


def test_a_cache_that_nothing_is_read_from_is_told(tmp_path: Path) -> None:
    """Azure's traces do not say what prompts consist of. Bailian's third request repeats the first."""
    rows = [f"2023-11-16 18:17:0{i}.0000000,900,9" for i in range(3)]
    path = trace(tmp_path, AZURE, *rows)
    settings = [f"workload.path={path}", "workload.requests=3", "serving.cache_tokens=4096"]
    assert in_vain("quickstart", *settings, "serving.fetch=queue") == [
        "serving.cache_tokens, serving.fetch: no effect, no prompt begins with a full block of an earlier one"
    ]

    trace(tmp_path, *[bailian(timestamp=t) for t in (0.0, 1.0, 2.5)])
    assert in_vain("quickstart", *settings) == []


def test_options_that_no_policy_takes_are_told() -> None:
    assert in_vain("quickstart", "policies=[fair]", "scheduler.mlu_top=0.4", "scheduler.recheck_ms=9") == [
        "scheduler.mlu_top: no effect, none of the policies has this option",
        "scheduler.recheck_ms: no effect, none of the policies has this option",
    ]
    assert in_vain("quickstart", "policies=[fair, mfs]", "scheduler.mlu_top=0.4") == []
    assert in_vain("quickstart", "policies=[llf]", "scheduler.recheck_ms=9") == []


def test_levels_are_told_to_mean_nothing_in_exact_order() -> None:
    policies = 'policies=["sebf(levels=3)", "mfs(levels=3)", fair]'
    assert in_vain("quickstart", policies, "simulation.order=exact") == [
        "levels of sebf: no effect, in exact order (simulation.order)"
    ]
    assert in_vain("quickstart", policies) == []


def test_request_control_is_told_to_need_requests() -> None:
    assert in_vain("coflow-small", 'policies=["fair + requests", fair]') == [
        "fair + requests: request control has no effect, there are no requests"
    ]


def test_a_class_that_no_request_has_is_told(tmp_path: Path) -> None:
    path = trace(tmp_path, bailian(), bailian(timestamp=1.0, type="search"), bailian(timestamp=2.0))
    settings = [f"workload.path={path}", "workload.requests=3", "workload.class_from=type"]

    told = in_vain("quickstart", *settings, "slo.classes={serach: {absolute_s: 2}, text: {absolute_s: 9}}")

    assert told == [
        "slo.classes.serach: no effect, no request is of that class (there are: text 2, search 1)"
    ]


@pytest.mark.parametrize(
    ("setting", "makes_it_count", "without"),
    [
        ("serving.router=random", "units.more=[{ranks_per_unit: 2}]", ("units.prefill_units=1",)),
        ("serving.all_reduce=tree", "units.more=[{ranks_per_unit: 2, tp: 2}]", ()),
        ("units.sequence=ulysses", "units.more=[{ranks_per_unit: 2, sp: 2}]", ()),
        ("simulation.paths=least-loaded", "topology.nics_per_server=2", ("topology.gpus_per_server=1",)),
    ],
)
def test_units_of_other_sizes_and_nics_of_a_gpu_give_a_key_its_effect(
    setting: str, makes_it_count: str, without: tuple[str, ...]
) -> None:
    small = ("workload.requests=2", "topology.servers=12", *without)
    assert len(in_vain("quickstart", *small, setting)) == 1
    assert in_vain("quickstart", *small, setting, makes_it_count) == []


def test_a_decode_worker_of_all_ranks_leaves_nothing_to_choose() -> None:
    small = ("workload.requests=2", "units.decode_ranks=2", "serving.decode=least-loaded")
    assert in_vain("quickstart", *small) == []
    (told,) = in_vain("quickstart", *small, "units.decode_tp=2")
    assert told == "serving.decode: no effect, there is one decode worker"
