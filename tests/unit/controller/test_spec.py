"""Specs of policies in a scenario, with request control and without."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from controller.overload import QueueOrder, RequestControl
from controller.policies import PolicyError
from controller.policies.fair import Fair
from controller.policies.mfs import Mfs, MfsOptions
from controller.spec import control_options, read_spec
from experiments.cli.app import app
from experiments.resolve.jobs import resolve
from experiments.scenario.scenario import Scenario


def test_a_policy_alone_controls_no_requests() -> None:
    spec = read_spec("fair")
    assert isinstance(spec.policy, Fair)
    assert spec.control is None


def test_request_control_follows_any_policy_with_spaces_or_without() -> None:
    for text in ("fair+requests", " fair + requests ", "fair()+requests()"):
        spec = read_spec(text)
        assert isinstance(spec.policy, Fair)
        assert spec.control == RequestControl()


def test_both_parts_take_their_own_options() -> None:
    spec = read_spec("mfs(levels=4, rli=off) + requests(order=fcfs, prune=off, drop_budget=0.2)")
    assert isinstance(spec.policy, Mfs)
    assert spec.policy.options == MfsOptions(levels=4, rli=False)
    assert spec.control == RequestControl(order=QueueOrder.FCFS, prune=False, drop_budget=0.2)


def test_what_the_scenario_says_reaches_the_policy() -> None:
    spec = read_spec("mfs + requests", levels=5)
    assert spec.policy.options == MfsOptions(levels=5)
    assert spec.control == RequestControl()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("fair + request", "a policy cannot be followed by '+request'; there is '+requests' or"),
        ("fair +", "a policy cannot be followed by '+'"),
        ("fair + requests + requests", "a policy cannot be followed by '+requests + requests'"),
        ("fair + requests(prune)", "'prune' is not option=value"),
        ("fair + requests(prune=on", "is not a policy; write name or name(option=value, ...)"),
        ("fair + requests(drop=0.1)", "'+requests' has no option 'drop'"),
        ("fair + requests(order=edf)", "'+requests' cannot take order=edf; it wants red or fcfs"),
        ("fair + requests(prune=maybe)", "'+requests' cannot take prune=maybe; it wants on or off"),
        ("fair + requests(drop_budget=2)", "drop_budget must be 0 to 1, not 2.0"),
        ("fair + requests(drop_budget=nan)", "drop_budget must be 0 to 1, not nan"),
        ("mfz + requests", "there is no policy 'mfz'; did you mean 'mfs'?"),
        ("mfs(rho=1) + requests", "rho must be 0 to 0.95"),
        ("mfs(rho=0 + requests", "is not a policy; write name or name(option=value, ...)"),
        ("+ requests", "is not a policy; write name or name(option=value, ...)"),
    ],
)
def test_a_wrong_spec_is_refused_in_words(text: str, complaint: str) -> None:
    with pytest.raises(PolicyError) as refused:
        read_spec(text)
    assert complaint in str(refused.value)


def test_an_unknown_option_is_answered_with_the_valid_ones_and_their_defaults() -> None:
    with pytest.raises(PolicyError) as refused:
        read_spec("fair + requests(drop_bugdet=0.1)")
    message = str(refused.value)
    assert "did you mean 'drop_budget'?" in message
    assert "options of requests with their defaults:" in message
    assert all(line in message for line in [one.line for one in control_options()])
    assert "order=red" in message


def test_every_option_of_request_control_is_on_its_page_and_in_the_list(
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = (Path(__file__).parents[3] / "docs" / "concepts" / "request-control.md").read_text()
    app(["policies"], standalone_mode=False)
    listed = capsys.readouterr().out
    assert "\n+requests " in listed
    for line in [one.line for one in control_options()]:
        assert f"| `{line.split('=')[0]}` |" in page
        assert f"    {line}\n" in listed


def test_a_scenario_takes_a_policy_with_and_without_request_control() -> None:
    scenario = Scenario(policies=("fair", "fair + requests", "mfs + requests(prune=off)"))
    jobs = resolve(scenario).jobs
    assert [job.policy for job in jobs] == list(scenario.policies)
    assert [job.control for job in jobs] == [None, RequestControl(), RequestControl(prune=False)]


def test_a_scenario_refuses_a_wrong_option_of_request_control() -> None:
    with pytest.raises(ValidationError, match="'\\+requests' has no option 'size'"):
        Scenario(policies=("fair + requests(size=1)",))
