"""docs/reference/scenarios.md lists every key of a scenario, with its default and its limits in the code."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from experiments.scenario.faults import FaultKind, FaultSpec
from experiments.scenario.keys import allowed, key_of, section_of
from experiments.scenario.micro_flows import FlowSpec
from experiments.scenario.scenario import Scenario
from experiments.scenario.text import to_yaml
from testbed.models.gpus import GPUS
from testbed.models.known_models import MODELS
from testbed.serving.routing.decode_choices import DECODE_CHOICES
from testbed.serving.routing.routers import ROUTERS

PAGE = (Path(__file__).parents[3] / "docs" / "reference" / "scenarios.md").read_text(encoding="utf-8")
BEFORE, _, REST = PAGE.partition("### The micro workload")
FLOWS, _, AFTER = REST.partition("\n## ")
SLO, _, REST = AFTER.partition("\n## `faults`")
FAULTS, _, AFTER = REST.partition("\n## ")

ROWS = {
    row[1]: (row[2], row[3])
    for row in re.finditer(r"^\| `(\S+)` \| `(.*?)` \| (.*?) \|", BEFORE + SLO + AFTER, re.MULTILINE)
}
"""Key -> (default, allowed), from the tables of the page but those of a flow's and of a fault's keys."""


def keys(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str]]:
    """The full name of every key, with the limits that `mfs scenarios` prints."""
    for name, field in model.model_fields.items():
        key = prefix + key_of(name, field)
        section = section_of(field)
        if section is None:
            yield key, allowed(field)
        else:
            yield from keys(section, f"{key}.")


KEYS = dict(keys(Scenario))
DEFAULTS = yaml.safe_load(to_yaml(Scenario()))


@pytest.mark.parametrize("key", KEYS)
def test_the_page_lists_the_key_with_its_default(key: str) -> None:
    assert key in ROWS, f"docs/reference/scenarios.md has no row for {key}"
    default = DEFAULTS
    for part in key.split("."):
        default = default[part]
    assert yaml.safe_load(ROWS[key][0]) == default


@pytest.mark.parametrize("key", [key for key, limits in KEYS.items() if limits])
def test_the_page_says_what_the_key_may_be(key: str) -> None:
    assert ROWS[key][1] == KEYS[key].replace(" | ", " or ")


def test_the_page_lists_no_key_that_does_not_exist() -> None:
    assert sorted(ROWS) == sorted(KEYS)


@pytest.mark.parametrize("key", FlowSpec.model_fields)
def test_the_page_lists_the_key_of_a_flow(key: str) -> None:
    row = re.search(rf"^\| [^|]*`{key}`", FLOWS, re.MULTILINE)
    assert row, f"docs/reference/scenarios.md has no row for a flow's {key}"


@pytest.mark.parametrize("key", FaultSpec.model_fields)
def test_the_page_lists_the_key_of_a_fault(key: str) -> None:
    assert re.search(rf"^\| `{key}`", FAULTS, re.MULTILINE), f"no row for a fault's {key}"


@pytest.mark.parametrize("kind", FaultKind)
def test_the_page_and_the_concept_name_the_kind_of_a_fault(kind: FaultKind) -> None:
    concept = (Path(__file__).parents[3] / "docs" / "concepts" / "faults.md").read_text(encoding="utf-8")
    assert kind in FAULTS
    assert f"| `{kind}` |" in concept


@pytest.mark.parametrize("name", [*MODELS, *GPUS, *ROUTERS, *DECODE_CHOICES])
def test_the_page_names_what_a_key_can_name(name: str) -> None:
    assert f"`{name}`" in PAGE
