"""SLO classes from a column of a trace."""

from pathlib import Path

import pytest
from trace_files import BURSTGPT, bailian, load, trace

from experiments.errors import UserError


def test_a_column_can_say_the_class_of_a_request(tmp_path: Path) -> None:
    path = trace(tmp_path, *[bailian(type=kind, turn=i) for i, kind in enumerate(("text", "file", "text"))])

    by_type, by_turn = load(path, 3, class_from="type"), load(path, 3, class_from="turn")

    assert [r.slo_class for r in by_type.requests] == ["text", "file", "text"]
    assert by_type.notes[-1] == "SLO classes are those of type: text 2, file 1"
    assert [r.slo_class for r in by_turn.requests] == ["0", "1", "2"]


def test_a_column_with_a_space_is_one_too(tmp_path: Path) -> None:
    path = trace(tmp_path, BURSTGPT, "5,GPT-4,10,1,11,API log")

    assert load(path, class_from="Log Type").requests[0].slo_class == "API log"
    assert load(path, class_from="Model").requests[0].slo_class == "GPT-4"


def test_a_column_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    path = trace(tmp_path, bailian(), bailian(type=None))

    with pytest.raises(UserError, match=r"'tipe' is not a column of a bailian trace .*known: 'type', 'turn'"):
        load(path, class_from="tipe")
    with pytest.raises(UserError, match="request 2: nothing in 'type'"):
        load(path, skip=1, class_from="type")
