"""Reading scenarios: layers, the places that errors name, and writing scenarios as text."""

from pathlib import Path

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments import yaml_file
from experiments.errors import UserError
from experiments.scenario.reading import builtin_scenarios, load_scenario, override
from experiments.scenario.scenario import Scenario
from experiments.scenario.text import to_yaml
from experiments.scenario.workload import WorkloadKind
from experiments.yaml_file import parse
from testbed.topology import TopologyKind


def write(folder: Path, name: str, text: str) -> str:
    path = folder / name
    path.write_text(text)
    return str(path)


def refusal(scenario: str, *settings: str) -> str:
    with pytest.raises(UserError) as caught:
        load_scenario(scenario, [override(text) for text in settings])
    return str(caught.value)


def test_a_file_of_one_key_is_a_scenario_of_defaults_named_after_it(tmp_path: Path) -> None:
    scenario = load_scenario(write(tmp_path, "one.yaml", "seed: 7"))

    assert scenario == Scenario(name="one", seed=7)


@pytest.mark.parametrize("text", ["", "# extends: quickstart\n", "---\n", "{}"])
def test_a_file_that_says_nothing_may_have_been_cut_off_and_is_refused(tmp_path: Path, text: str) -> None:
    path = write(tmp_path, "cut.yaml", text)

    assert refusal(path) == f"{path}: says nothing; a scenario sets one key at least, such as 'extends'"


def test_a_file_that_extends_another_changes_only_what_it_says(tmp_path: Path) -> None:
    write(tmp_path, "base.yaml", "topology: {servers: 6, nic_gbps: 25}\npolicies: [fair, mfs]\n")
    top = write(tmp_path, "top.yaml", "extends: base.yaml\ntopology: {servers: 8}\npolicies: [mfs]\n")

    scenario = load_scenario(top)

    assert scenario.topology.servers == 8
    assert scenario.topology.nic_gbps == 25
    assert scenario.policies == ("mfs",)


def test_an_option_has_the_last_word_over_the_file() -> None:
    scenario = load_scenario("quickstart", [override("topology.servers=12")])

    assert scenario.topology.servers == 12


def test_a_file_without_a_name_is_named_after_itself_whatever_it_extends(tmp_path: Path) -> None:
    scenario = load_scenario(write(tmp_path, "_my first.yaml", "extends: quickstart\n"))

    assert scenario.name == "my-first"


def test_scenarios_that_extend_each_other_in_a_circle_are_refused(tmp_path: Path) -> None:
    a = write(tmp_path, "a.yaml", "extends: b.yaml\n")
    write(tmp_path, "b.yaml", "extends: a.yaml\n")

    assert "b.yaml, line 1: extends: a.yaml extends this one in turn" in refusal(a)


def test_a_file_may_extend_the_built_in_scenario_it_is_named_like(tmp_path: Path) -> None:
    mine = write(tmp_path, "quickstart.yaml", "extends: quickstart\nseed: 7\n")

    assert load_scenario(mine).seed == 7


def test_a_rate_takes_back_the_inherited_load() -> None:
    assert load_scenario("quickstart").workload.load is not None

    workload = load_scenario("quickstart", [override("workload.rate=5")]).workload

    assert (workload.rate, workload.load) == (5.0, None)


def test_a_rate_and_a_load_in_one_breath_are_refused() -> None:
    message = refusal("quickstart", "workload.rate=5", "workload.load=0.5")

    assert message == "--set workload.load=0.5: workload.load: only one of rate and load may be given"


def test_an_absolute_slo_takes_back_the_multiple() -> None:
    slo = load_scenario("quickstart", [override("slo.absolute_s=1.5")]).slo

    assert (slo.multiple, slo.absolute_s) == (None, 1.5)


def test_a_number_with_an_exponent_is_a_number() -> None:
    flow = "workload.flows=[{id: a, src: h1, dst: h2, bytes: 1e6}]"

    assert load_scenario("two-flows", [override(flow)]).workload.flows[0].bytes == 1_000_000


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("topology.servrs=3", "unknown key 'topology.servrs'; did you mean 'topology.servers'?"),
        ("requests=4", "unknown key 'requests'; did you mean 'workload.requests'?"),
        ("workload.slo_class=a", "unknown key 'workload.slo_class'; did you mean"),
        ("topology.servers=-1", "topology.servers: -1 is out of range: allowed is 2 .. 4096"),
        ("topology.servers=ten", "topology.servers: 'ten' is not a whole number"),
        ("topology.servers=true", "topology.servers: true is not a whole number"),
        ("scale.bytes_scale=.nan", "scale.bytes_scale: .nan is not a finite number"),
        ("scale.bytes_scale=-.inf", "scale.bytes_scale: -.inf is not a finite number"),
        ("name=null", "name: null is not text"),
        ("seed=[null, {a: false}, b]", "seed: [null, {a: false}, 'b'] is not a whole number"),
        ("a.b=1", "unknown key 'a'"),
        ("topology={servers: 1}", "topology.servers: 1 is out of range"),
        ("topology=3", "topology: 3 is not a mapping of keys to values"),
        ("topology.kind=ring", "topology.kind: 'ring' is not one of star, leaf-spine, fat-tree"),
        ("model=mixtral", "'mixtral' is not a known model; did you mean 'mixtral-8x7b'?"),
        ("gpu=a10", "'a10' is not a known GPU; did you mean 'a100'?"),
        ("policies=[fair, fairr]", "policies[1]: there is no policy 'fairr'; did you mean 'fair'"),
        ("policies=['mfs(rho=much)']", "policies[0]: policy 'mfs' cannot take rho=much"),
        ("policies=[fair, fair]", "policies: 'fair' is listed twice"),
        ("policies=[fair+requests, fair + requests]", "policies: 'fair + requests' is listed twice"),
        ("policies=[]", "policies: [] is empty"),
        ("scheduler.recheck_ms=1e-7", "is out of range: allowed is 0.001 .. 1000000"),
        ("fabric=miniet", "'miniet' is not a known fabric; did you mean 'mininet'?"),
        ("serving.router=nearest", "'nearest' is not a known router"),
        ("workload.class=gold", "'gold' is not in slo.classes (known: default)"),
        ("workload.kind=mooncake", "workload.kind: mooncake needs workload.path, a trace file"),
        ("workload.kind=flows", "workload.kind: flows needs at least one flow"),
        ("workload.load=null", "workload.load: random arrivals need a load or a rate"),
        (
            "slo.classes={gold: {multiple: 2, absolute_s: 1}}",
            "exactly one of multiple and absolute_s",
        ),
        ("slo.classes={gold: {multipl: 2}}", "did you mean 'slo.classes.gold.multiple'?"),
        ("slo.classes={default: {multiple: 2}}", "the default class is slo.multiple"),
        ("name=../up", "it must match"),
    ],
)
def test_a_bad_option_is_named_with_what_is_right(setting: str, told: str) -> None:
    message = refusal("quickstart", setting)

    assert message.startswith(f"--set {setting}: ")
    assert told in message


@pytest.mark.parametrize(
    ("flow", "told"),
    [
        (
            "{id: a, src: h9, dst: h1, bytes: 1}",
            "flows[0].src: 'h9' is not a server of this topology (h1..h3)",
        ),
        ("{id: a, src: h1, dst: h1, bytes: 1}", "flows[0].dst: 'h1' is the source too"),
        ("{id: a, src: h1, dst: h2, bytes: 0}", "flows[0].bytes: 0 is out of range"),
        ("{id: a, src: h1, dst: h2, bytes: 1, stage: S4}", "'S4' is not one of S1, S2, S3"),
        ("{id: a, src: h1, dst: h2}", "'workload.flows[0].bytes' is missing"),
        ("{id: a, src: h1, dst: h2, bytes: 1, size: 2}", "unknown key 'workload.flows[0].size'"),
        (
            "{id: a, src: h1, dst: h2, bytes: 1, start_s: 2, deadline_s: 1}",
            "1 is not after the start",
        ),
        (
            "{id: a, src: h1, dst: h2, bytes: 1}, {id: a, src: h2, dst: h1, bytes: 1}",
            "flows[1].id: 'a' is used twice",
        ),
    ],
)
def test_a_bad_micro_flow_is_named_with_its_place_in_the_list(flow: str, told: str) -> None:
    assert told in refusal("two-flows", f"workload.flows=[{flow}]")


def test_an_option_that_replaces_what_another_set_is_the_one_that_is_blamed() -> None:
    message = refusal("quickstart", "topology.servers=3", "topology=4")

    assert message == "--set topology=4: topology: 4 is not a mapping of keys to values"


def test_a_bad_value_in_a_file_is_named_with_file_and_line(tmp_path: Path) -> None:
    path = write(tmp_path, "bad.yaml", "seed: 1\ntopology:\n  servers: 1\n")

    assert refusal(path) == f"{path}, line 3: topology.servers: 1 is out of range: allowed is 2 .. 4096"


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    path = write(tmp_path, "bad.yaml", "seed: -1\nsead: 2\n")

    assert refusal(path).splitlines() == [
        f"{path}, line 1: seed: -1 is out of range: allowed is 0 .. 4294967295",
        f"{path}, line 2: unknown key 'sead'; did you mean 'seed'?",
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("seed: 1\npolicies: [fair\n", "line 3: not YAML"),
        ("seed: 1\nseed: 2\n", "line 2: the key 'seed' is given twice"),
        ("- 1\n", "a scenario is a mapping"),
        ("a: &a [*a]\n", "line 1: this value contains itself"),
        ("a: \x01\n", "not YAML"),
        ("extends: [quickstart]\n", "line 1: extends: name one scenario or file, not ['quickstart']"),
        ("extends: null\n", "line 1: extends: name one scenario or file, not null"),
        ("extends: nowhere\n", "line 1: extends: no scenario 'nowhere'"),
    ],
)
def test_a_file_that_is_no_scenario_is_named_with_the_line(tmp_path: Path, text: str, told: str) -> None:
    path = write(tmp_path, "bad.yaml", text)

    assert refusal(path).startswith(path)
    assert told in refusal(path)


def test_aliases_that_expand_to_billions_are_refused_at_once(tmp_path: Path) -> None:
    """Each of 11 lists repeats the one before it 9 times, so the last has more than 9 ** 12 values."""
    lists = [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)]
    path = write(tmp_path, "laughs.yaml", "a0: &a0 [1, 2, 3, 4, 5, 6, 7, 8, 9]\n" + "".join(lists))

    message = refusal(path)

    assert message.startswith(f"{path}: its aliases (*name) expand to ")
    assert message.endswith("at most 100,000 are allowed: repeat less")
    assert "\n" not in message


def test_as_many_values_as_are_allowed_may_come_from_aliases() -> None:
    """The list `a` has 100 values and is a value itself: 101 each time. 990 * 101 + 10 = 100,000."""
    lists, single = ["*a"] * 990, ["*b"] * 10
    first = f"a: &a [{', '.join(['1'] * 100)}]\nb: &b 1\n"

    data = parse(first + f"c: [{', '.join(lists + single)}]\n", "x.yaml").data
    assert len(data["c"]) == 1000
    with pytest.raises(UserError, match="expand to 100,001 values more than are written"):
        parse(first + f"c: [{', '.join([*lists, *single, '*b'])}]\n", "x.yaml")


def test_a_long_list_without_aliases_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yaml_file, "MOST_REPEATED", 1_000)
    assert len(parse(f"[{'1,' * 1_002}]", "x.yaml").data) == 1_002


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "binary.yaml"
    path.write_bytes(b"\xff\xfe\x00")

    assert refusal(str(path)) == f"{path}: not a text file (UTF-8)"


def test_a_misspelt_scenario_is_answered_with_the_nearest() -> None:
    assert "did you mean 'quickstart'?" in refusal("quikstart")


def test_an_option_without_a_value_is_refused() -> None:
    with pytest.raises(UserError, match="write it as key"):
        override("topology.servers")


def test_a_trace_path_is_relative_to_the_file_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"hash_ids": []}\n')
    path = write(tmp_path, "s.yaml", "workload: {kind: mooncake, path: t.jsonl}\n")

    assert load_scenario(path).workload.path == str(tmp_path / "t.jsonl")


@pytest.mark.parametrize(
    ("first_line", "kind"),
    [
        ('{"timestamp": 0, "hash_ids": [0]}', WorkloadKind.MOONCAKE),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\r", WorkloadKind.AZURE),
    ],
)
def test_a_path_beside_a_generated_kind_means_the_trace_it_leads_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first_line: str, kind: WorkloadKind
) -> None:
    (tmp_path / "trace").write_text(first_line + "\n")
    monkeypatch.chdir(tmp_path)

    workload = load_scenario("quickstart", [override("workload.path=trace")]).workload

    assert (workload.kind, workload.path) == (kind, str(tmp_path / "trace"))


def test_a_path_to_something_else_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "notes.txt", "hello\n")

    assert "not the start of a known trace" in refusal("quickstart", f"workload.path={path}")


@pytest.mark.parametrize("name", ["quickstart", "two-flows", "leaf-spine", "fat-tree", "rail-optimised"])
def test_every_scenario_of_the_package_is_the_same_after_printing_and_reading(
    tmp_path: Path, name: str
) -> None:
    assert name in builtin_scenarios()
    scenario = load_scenario(name)

    assert load_scenario(write(tmp_path, "printed.yaml", to_yaml(scenario))) == scenario


@hypothesis.settings(max_examples=50)
@given(
    # Control characters are refused, so no scenario has one.
    description=st.text(st.characters(codec="utf-8", exclude_categories=("Cc",)), max_size=40),
    dilation=st.floats(min_value=1e-3, max_value=1e6),
    seed=st.integers(min_value=0, max_value=2**32 - 1),
    slo_class=st.text(st.characters(codec="utf-8", categories=("L", "P", "N")), min_size=1),
)
def test_any_scenario_is_the_same_after_printing_and_reading(
    tmp_path_factory: pytest.TempPathFactory,
    description: str,
    dilation: float,
    seed: int,
    slo_class: str,
) -> None:
    scenario = Scenario.model_validate(
        {
            "description": description,
            "seed": seed,
            "scale": {"time_dilation": dilation},
            "slo": {"classes": {f"x{slo_class}": {"absolute_s": 0.5}}},
            "workload": {"class": f"x{slo_class}"},
        }
    )
    path = tmp_path_factory.getbasetemp() / "printed.yaml"
    path.write_text(to_yaml(scenario), encoding="utf-8")

    assert load_scenario(str(path)) == scenario


def test_every_key_is_printed_below_a_comment() -> None:
    lines = to_yaml(Scenario()).splitlines()

    keys = [i for i, line in enumerate(lines) if ":" in line and not line.lstrip().startswith("#")]
    assert len(keys) > 50
    assert all(lines[i - 1].lstrip().startswith("# ") for i in keys)


def test_the_comment_of_a_key_says_what_is_allowed() -> None:
    text = to_yaml(Scenario())

    assert "  # number of servers, named h1..hN [2 .. 4096]\n  servers: 10\n" in text
    assert (
        "  # shape of the network [star | leaf-spine | fat-tree | rail-optimised | file]\n  kind: star\n"
        in text
    )


def test_hosts_per_leaf_is_the_servers_over_the_leaves_rounded_up() -> None:
    """7 servers on 2 leaves are 4 below each leaf, so 8 servers in total."""
    topology = load_scenario(
        "quickstart", [override("topology.kind=leaf-spine"), override("topology.servers=7")]
    ).topology

    assert topology.kind is TopologyKind.LEAF_SPINE
    assert (topology.below_each_leaf, topology.server_count) == (4, 8)


def test_a_number_with_colons_is_no_number(tmp_path: Path) -> None:
    """YAML 1.1 reads 1:30 as the base-60 number 90, which is never what a user means."""
    with pytest.raises(UserError, match="seed"):
        load_scenario("quickstart", [override("seed=1:30")])
