"""Policies by name: what a spec may contain, and the messages if it is wrong."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from scheduling_world import due

from controller.flow import Batch, Flow, Level, Stage
from controller.policies import (
    Policy,
    PolicyError,
    describe,
    make_policy,
    policy_names,
    policy_options,
    register,
)
from controller.policies.fair import Fair
from controller.policies.mfs import Demand, MfsOptions, Rho
from controller.policies.option_help import OptionHelp
from controller.policy import Verdict
from controller.scheduler import Scheduler
from controller.spec import read_spec
from controller.verdict_checks import SchedulerError
from controller.view import ActiveFlow, View

UP = "h1->s1"


def first_level(spec: str, stage: Stage) -> Level:
    scheduler = Scheduler(make_policy(spec), ports={UP: 10**9})
    scheduler.batch_started(0, Batch(id="b", layers=2, requests=due(10**9)))
    flow = Flow(id="f", stage=stage, size_bytes=1, load={UP: 1}, batch="b", layer=0)
    return scheduler.submit(0, flow)[0].level


def options_of(spec: str, **defaults: float) -> MfsOptions:
    options = make_policy(spec, **defaults).options
    assert isinstance(options, MfsOptions)
    return options


def test_every_policy_has_a_name_and_a_line() -> None:
    assert {"fair", "mfs", "stage"} <= set(policy_names())
    assert list(describe()) == policy_names()
    assert all(line and "\n" not in line for line in describe().values())


def test_every_option_of_a_policy_is_on_its_page() -> None:
    pages = Path(__file__).parents[4] / "docs" / "policies"
    for name in policy_names():
        page = (pages / f"{name}.md").read_text()
        for option in policy_options(name):
            assert f"| `{option.name}` |" in page


def just_outside(option: OptionHelp, bound: float, *, up: bool) -> str:
    step = 1 if option.kind == "a whole number" else 1e-4
    return f"{bound + (step if up else -step):.12g}"


def test_options_are_refused_just_outside_the_bounds_that_are_told_and_taken_at_them() -> None:
    """The bounds are written beside the checks, so they could drift apart."""
    bounded = [(name, one) for name in policy_names() for one in policy_options(name) if one.bounds]
    assert len(bounded) > 20
    for name, one in bounded:
        refused = []
        if one.least is not None:
            make_policy(f"{name}({one.name}={one.least:g})")
            refused.append(just_outside(one, one.least, up=False))
        if one.most is not None:
            make_policy(f"{name}({one.name}={one.most:g})")
            refused.append(just_outside(one, one.most, up=True))
        if one.above is not None:
            make_policy(f"{name}({one.name}={just_outside(one, one.above, up=True)})")
            refused.append(f"{one.above:g}")
        for value in refused:
            with pytest.raises(PolicyError, match="cannot be made"):
                make_policy(f"{name}({one.name}={value})")


def test_fair_puts_every_stage_on_one_level() -> None:
    assert {first_level("fair", stage) for stage in Stage} == {Level.P3}


def test_stage_order_is_collectives_then_reuse_then_p2d_below_the_reserved_level() -> None:
    levels = [first_level("stage", stage) for stage in (Stage.COLLECTIVE, Stage.KV_REUSE, Stage.P2D)]
    assert levels == [Level.P2, Level.P3, Level.P4]


def test_static_puts_each_stage_on_the_level_that_its_option_says() -> None:
    levels = [first_level("static(s1=6, s2=1, s3=6)", stage) for stage in Stage]
    assert dict(zip(Stage, levels, strict=True)) == {
        Stage.KV_REUSE: Level.P6,
        Stage.COLLECTIVE: Level.P1,
        Stage.P2D: Level.P6,
        Stage.BACKGROUND: Level.SCAVENGER,
    }


def test_static_without_options_has_the_levels_of_stage() -> None:
    for stage in Stage:
        assert first_level("static", stage) == first_level("stage", stage)


def test_static_with_weights_gives_each_level_in_use_its_weight_p1_first() -> None:
    policy = make_policy("static(s1=2, s2=1, s3=2, weights=99:1)")
    assert policy.level_weights == {Level.P1: 99.0, Level.P2: 1.0}
    assert make_policy("static(s1=3, s2=6, s3=1, weights=1:2:0.5)").level_weights == {
        Level.P1: 1.0,
        Level.P3: 2.0,
        Level.P6: 0.5,
    }


@pytest.mark.parametrize("spec", ["static", "static(weights=strict)", "stage", "fair", "mfs"])
def test_policies_without_weights_ask_for_strict_priority(spec: str) -> None:
    assert make_policy(spec).level_weights is None


@pytest.mark.parametrize(
    ("weights", "why"),
    [
        ("99:1", r"one for each level in use \(P2, P3, P4\)"),
        ("1:1:1:1", "one for each level in use"),
        ("1:0:1", "each weight must be 0.001 to 1,000,000"),
        ("1:-2:1", "each weight must be 0.001 to 1,000,000"),
        ("1:inf:1", "each weight must be 0.001 to 1,000,000"),
        ("1:nan:1", "each weight must be 0.001 to 1,000,000"),
        ("1e-320:1:1", "each weight must be 0.001 to 1,000,000"),
        ("1e300:1:1e-300", "each weight must be 0.001 to 1,000,000"),
        ("1e9:1:1", "each weight must be 0.001 to 1,000,000"),
        ("1001:1:1", "the largest weight may be at most 1,000 times the smallest"),
        ("1:two:3", "strict, or numbers as in 99:1"),
        ("60%:30%:10%", "strict, or numbers as in 99:1"),
    ],
)
def test_weights_of_static_that_do_not_fit_are_refused(weights: str, why: str) -> None:
    with pytest.raises(PolicyError, match=why):
        make_policy(f"static(weights={weights})")


@pytest.mark.parametrize("weights", ["1000:1:1", "0.001:1:1", "1e6:1e3:1e6"])
def test_weights_at_the_bounds_are_taken(weights: str) -> None:
    assert make_policy(f"static(weights={weights})").level_weights is not None


class Weighing(Fair):
    """Puts all flows on P3."""

    name = "weighing"


def test_a_policy_may_not_use_a_level_without_a_weight_if_it_has_weights() -> None:
    policy = Weighing(Fair.Options())
    policy.level_weights = {Level.P1: 2, Level.P2: 1}
    scheduler = Scheduler(policy, ports={UP: 10**9})
    with pytest.raises(SchedulerError, match="P3, which has no weight; the levels with one are P1, P2"):
        scheduler.submit(0, Flow(id="f", stage=Stage.P2D, size_bytes=1, load={UP: 1}))


@pytest.mark.parametrize(
    ("weights", "why"),
    [
        ({Level.SCAVENGER: 1.0}, "weights are of P1 to P6"),
        ({Level.CONTROL: 1.0}, "weights are of P1 to P6"),
        ({Level.P3: 0.0}, "P3 0: each weight must be"),
        ({Level.P3: 1.0, Level.P4: 2000.0}, "P3 1, P4 2000: the largest weight may be at most 1,000 times"),
    ],
)
def test_weights_that_no_fabric_can_carry_out_are_refused(weights: dict[Level, float], why: str) -> None:
    policy = Weighing(Fair.Options())
    policy.level_weights = weights
    with pytest.raises(PolicyError, match=why):
        Scheduler(policy, ports={UP: 10**9})


def test_weights_of_any_policy_are_checked_when_it_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Fair, "level_weights", {Level.P3: 1.0, Level.P4: 2000.0})
    with pytest.raises(PolicyError, match="policy 'fair' gives levels the weights P3 1, P4 2000"):
        make_policy("fair")


def test_a_policy_that_only_replaces_the_options_of_another_keeps_its_standing_verdicts() -> None:
    view = Scheduler(make_policy("stage"), ports={UP: 10**9}).view
    verdict = make_policy("stage").standing(Stage.COLLECTIVE, None, view)
    assert verdict is not None
    assert verdict.level is Level.P2
    assert not make_policy("stage").reads_progress


def test_a_spec_sets_options_of_every_type() -> None:
    options = options_of(" mfs( rho = 0.3, rli=off, demand=own, levels=4 ) ")
    assert (options.rho, options.rli, options.demand, options.levels) == (0.3, False, Demand.OWN, 4)


def test_an_option_not_in_the_spec_keeps_its_default() -> None:
    assert options_of("mfs") == options_of("mfs()") == MfsOptions()
    assert options_of("mfs(rho=off)").rho is Rho.OFF


def test_the_scenario_fills_in_what_the_spec_leaves_open() -> None:
    options = options_of("mfs(levels=4)", levels=5, mlu_top=0.4)
    assert (options.levels, options.mlu_top) == (4, 0.4)


def test_a_policy_ignores_scenario_defaults_it_has_no_option_for() -> None:
    assert isinstance(make_policy("fair", levels=5, mlu_top=0.4), Fair)


def test_an_unknown_policy_is_answered_with_the_nearest_one() -> None:
    with pytest.raises(PolicyError, match=r"no policy 'mfz'; did you mean 'mfs'\?"):
        make_policy("mfz")


@pytest.mark.parametrize("name", ["nope", "x", "banana"])
def test_an_unknown_policy_that_is_near_none_is_answered_with_all(name: str) -> None:
    with pytest.raises(PolicyError, match=rf"there is no policy '{name}' \(policies: aalo, edf, "):
        make_policy(name)


def test_an_unknown_option_is_answered_with_the_valid_ones_and_their_defaults() -> None:
    with pytest.raises(PolicyError) as refused:
        make_policy("mfs(roh=0)")
    message = str(refused.value)
    assert "policy 'mfs' has no option 'roh'; did you mean 'rho'?" in message
    assert all(line in message for line in [one.line for one in policy_options("mfs")])
    assert "rho=measured" in message
    assert "monotonic=on" in message


@pytest.mark.parametrize(
    ("spec", "complaint"),
    [
        ("mfs(rli=perhaps)", "cannot take rli=perhaps; it wants on or off"),
        ("mfs(levels=4.5)", "cannot take levels=4.5; it wants a whole number"),
        ("mfs(demand=all)", "cannot take demand=all; it wants port or own"),
        ("mfs(rho=high)", "cannot take rho=high; it wants a number or measured or off"),
        ("mfs(rho=1)", "rho must be 0 to 0.95, not 1.0"),
        ("mfs(rho=nan)", "rho must be 0 to 0.95, not nan"),
        ("mfs(levels=9)", "levels must be 2 to 6, not 9"),
        ("mfs(recheck_ns=0)", "recheck_ns must be 1000 to 1e15"),
        ("mfs(recheck_ns=999)", "recheck_ns must be 1000 to 1e15, not 999"),
        ("mfs(rho_window_ms=1e300)", "rho_window_ms must be 0.001 to 1e6, not 1e+300"),
        ("mfs(mlu_top=inf)", "mlu_top and mlu_base must be at most 1e6, not inf, 4.0"),
        ("mfs(mlu_base=inf)", "mlu_top and mlu_base must be at most 1e6, not 0.5, inf"),
        ("mfs(mlu_top=nan)", "mlu_top must be above 0, not nan"),
        ("mfs(rho_window_ms=inf)", "rho_window_ms must be 0.001 to 1e6, not inf"),
        ("mfs(rho)", "'rho' is not option=value"),
        ("mfs(rho=0,rho=1)", "'rho' is there twice"),
        ("mfs(rho=0", "is not a policy; write name or name"),
        ("fair(speed=1)", "options of fair with their defaults: none"),
    ],
)
def test_a_wrong_option_is_refused_in_words(spec: str, complaint: str) -> None:
    with pytest.raises(PolicyError) as refused:
        make_policy(spec)
    assert complaint in str(refused.value)


@pytest.mark.parametrize(
    "spec", ["static(weights=1:1)", "static(s1=many)", "mfs(levels=9)", "fair+requests(order=5)"]
)
def test_a_wrong_value_is_answered_in_one_line(spec: str) -> None:
    with pytest.raises(PolicyError) as refused:
        read_spec(spec)
    assert "\n" not in str(refused.value)


def test_a_name_can_be_taken_only_once() -> None:
    with pytest.raises(PolicyError, match="two policies are called 'fair'"):
        register(type("Imposter", (Fair,), {}))


def test_no_policy_may_use_the_control_level() -> None:
    class Greedy(Policy):
        name = "greedy"
        summary = "wants the control level"

        def on_submit(self, now_ns: int, flow: ActiveFlow, view: View) -> Verdict:
            return Verdict(Level.CONTROL, "me first")

    scheduler = Scheduler(Greedy(None), ports={UP: 10**9})
    with pytest.raises(SchedulerError, match="'greedy' put flow 'f' on the control level"):
        scheduler.submit(0, Flow(id="f", stage=Stage.P2D, size_bytes=1, load={UP: 1}))


def install(folder: Path, *, name: str, points: dict[str, str], source: str) -> None:
    """Put a package with entry points into `folder`, as an installer would."""
    (folder / f"{name}.py").write_text(source)
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = "".join(f"{key} = {value}\n" for key, value in points.items())
    (info / "entry_points.txt").write_text(f"[mfs.policies]\n{lines}")


def test_an_installed_package_can_bring_a_policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page about adding a policy, followed to the letter: its test, its policy, its name."""
    page = (Path(__file__).parents[4] / "docs" / "policies" / "adding-a-policy.md").read_text()
    test, policy = (block.split("```")[0] for block in page.split("```python\n")[1:])
    entry = page.split('[project.entry-points."mfs.policies"]\n')[1].split("\n")[0]
    name, target = entry.replace('"', "").split(" = ")
    written: dict[str, Callable[[], None]] = {}
    exec(test, written)
    checks = [check for key, check in written.items() if key.startswith("test_")]
    assert len(checks) == 2
    for check in checks:
        with pytest.raises(PolicyError, match=f"no policy '{name}'"):
            check()
    install(tmp_path, name="small_first", points={name: target}, source=policy)
    monkeypatch.syspath_prepend(tmp_path)
    try:
        for check in checks:
            check()
        assert describe()[name] == "flows under a size go before all others"
    finally:
        sys.modules.pop("small_first", None)


ODD = """
from controller.policies.base import Policy

number = 3


class Even(Policy):
    name = "even"
    summary = "has another name than its entry point"
"""


@pytest.mark.parametrize(
    ("target", "complaint"),
    [
        ("odd:missing", "does not load"),
        ("odd:number", "is not a subclass of Policy"),
        ("odd:Even", "odd:Even is called 'even', not 'odd'"),
    ],
)
def test_an_entry_point_that_is_no_policy_of_its_name_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, complaint: str
) -> None:
    install(tmp_path, name="odd", points={"odd": target}, source=ODD)
    monkeypatch.syspath_prepend(tmp_path)
    try:
        with pytest.raises(PolicyError, match=f"policy 'odd'.*{complaint}"):
            make_policy("odd")
        assert complaint in describe()["odd"]  # and the others can still be listed
    finally:
        sys.modules.pop("odd", None)
