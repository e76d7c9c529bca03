"""The testbed's own format, and converting traces to it."""

import json
from pathlib import Path

import pytest
from toy_fabric import Mfs
from trace_files import AZURE, bailian, load, mooncake, trace

from experiments.errors import UserError
from experiments.trace_formats.formats import TraceFormat, detect_format
from experiments.traces.convert import convert

MS = 1_000_000
HEADER = '{"format": "mfs-requests", "version": 1, "block_tokens": 100, "labels": ["kind"]}'


def row(**changes: object) -> str:
    return json.dumps({"arrival_ns": 7, "prompt_tokens": 250, "output_tokens": 3} | changes)


def test_a_row_has_all_that_the_testbed_reads(tmp_path: Path) -> None:
    path = trace(
        tmp_path,
        HEADER,
        row(blocks=[5, 6], labels={"kind": "chat"}, session="a"),
        row(arrival_ns=9, labels={"kind": "code"}),
        row(arrival_ns=None, labels={"kind": "chat"}, session="a", pause_ns=4, guessed=["output"]),
    )

    assert detect_format(path) is TraceFormat.REQUESTS
    workload = load(path, 3, class_from="kind")
    first, second, third = workload.requests
    assert (first.blocks, first.block_tokens, first.slo_class) == ((5, 6), 100, "chat")
    assert (second.arrival_ns, second.after) == (2, None)
    assert (third.after, third.pause_ns) == (0, 4)
    assert any("length of the answer" in note for note in workload.notes)


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ((HEADER.replace("1,", "2,"), row()), "line 1: version 2; only 1 is known"),
        ((HEADER.replace("100", "0"), row()), "line 1: block_tokens is 0; allowed is 1 .."),
        ((HEADER.replace('["kind"]', "3"), row()), "line 1: labels is not a list of names"),
        (
            (HEADER, row(blocks=[1])),
            "line 2: 1 blocks for prompt_tokens 250; 2 full blocks",
        ),
        ((HEADER, row(size=1)), "line 2: size is not a key of mfs-requests (known: arrival_ns, "),
        ((HEADER, row(labels={"type": "x"})), "line 2: the label 'type' is not in the header"),
        ((HEADER, row(guessed=["time"])), "line 2: guessed is not a list of prompt, output"),
        ((HEADER, '{"prompt_tokens": 1}'), "line 2: arrival_ns is missing"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, lines: tuple[str, ...], told: str) -> None:
    path = trace(tmp_path, *lines)

    with pytest.raises(UserError) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}, {told}")


def session(tmp_path: Path) -> Path:
    return trace(
        tmp_path,
        mooncake(100, ids=(70, 80)),
        json.dumps({"session_id": "a", "timestamp": 130.5, "input_length": 10, "output_length": 2}),
        json.dumps({"session_id": "a", "delay": 40, "input_length": 30}),
        mooncake(160, ids=(70, 90)),
    )


def test_a_converted_trace_makes_the_same_requests(tmp_path: Path) -> None:
    path, out = session(tmp_path), tmp_path / "own"

    written = convert(path, TraceFormat.MOONCAKE, out, sort=False)

    assert written.requests == 4
    before, after = load(path, 4), load(out, 4)
    assert after.notes == before.notes == written.notes
    # The ids of blocks are given anew; which requests share one stays.
    assert [r.blocks for r in before.requests] == [(70,), (), (), (70,)]
    assert [r.blocks for r in after.requests] == [(0,), (), (), (0,)]
    strip = [
        [(r.arrival_ns, r.prompt_tokens, r.output_tokens, r.after, r.pause_ns) for r in one.requests]
        for one in (before, after)
    ]
    assert strip[0] == strip[1]


def test_rows_that_come_in_columns_are_written_as_they_are_one_by_one(tmp_path: Path) -> None:
    plain = ("2024-05-10 00:00:01+00:00,300,4", "2024-05-10 00:00:01.5+00:00,30,0")
    path = trace(tmp_path, AZURE, *plain)
    odd = tmp_path / "odd"
    odd.write_text("\n".join([AZURE, *(line.replace(",", " ,") for line in plain)]))
    together, one_by_one = tmp_path / "together", tmp_path / "one_by_one"

    written = [
        convert(one, TraceFormat.AZURE, out, sort=False) for one, out in ((path, together), (odd, one_by_one))
    ]

    assert written[0] == written[1]
    assert written[0].requests == 2
    assert together.read_text() == one_by_one.read_text()
    last = json.loads(together.read_text().splitlines()[-1])
    assert last == {"arrival_ns": 500 * MS, "prompt_tokens": 30, "output_tokens": 0}


def test_ids_that_come_in_columns_are_written_as_they_are_one_by_one(tmp_path: Path) -> None:
    """1,100 tokens are two full blocks and a third one that is not."""
    rows = [(0, 1100, (9, 4, 8)), (1, 512, (9,)), (2, 1024, (9, 3))]
    path = trace(tmp_path, *(mooncake(time, tokens=tokens, ids=ids) for time, tokens, ids in rows))
    odd = tmp_path / "odd"
    odd.write_text("".join(mooncake(float(t), tokens=n, ids=ids) + "\n" for t, n, ids in rows))
    together, one_by_one = tmp_path / "together", tmp_path / "one_by_one"

    for one, out in ((path, together), (odd, one_by_one)):
        convert(one, TraceFormat.MOONCAKE, out, sort=False)

    assert together.read_text() == one_by_one.read_text()
    written = [json.loads(line)["blocks"] for line in together.read_text().splitlines()[1:]]
    assert written == [[0, 1], [0], [0, 2]]


def test_labels_are_kept(tmp_path: Path) -> None:
    out = tmp_path / "own"
    path = trace(tmp_path, bailian(type="file"), bailian(type="text"))

    convert(path, TraceFormat.BAILIAN, out, sort=False)

    assert [r.slo_class for r in load(out, 2, class_from="type").requests] == ["file", "text"]
    assert load(out).requests[0].block_tokens == 16


def test_rows_out_of_order_are_sorted_only_if_that_is_wanted(tmp_path: Path) -> None:
    """The turn stays behind its session's first turn, which comes last."""
    path = trace(
        tmp_path,
        json.dumps({"session_id": "a", "timestamp": 90, "input_length": 1, "output_length": 1}),
        json.dumps({"session_id": "a", "delay": 1, "input_length": 2, "output_length": 1}),
        json.dumps({"timestamp": 30, "input_length": 3, "output_length": 1}),
        json.dumps({"timestamp": 20, "input_length": 4, "output_length": 1}),
    )
    out = tmp_path / "own"

    with pytest.raises(UserError, match=r"line 3: timestamp is earlier .*mfs workload convert .* --sort"):
        convert(path, TraceFormat.MOONCAKE, out, sort=False)
    assert not out.exists()
    convert(path, TraceFormat.MOONCAKE, out, sort=True)
    assert [(r.prompt_tokens, r.arrival_ns // MS) for r in load(out, 4).requests] == [
        (4, 0),
        (3, 10),
        (1, 70),
        (2, 71),
    ]


def test_the_command_says_what_it_has_written(mfs: Mfs, tmp_path: Path) -> None:
    path = session(tmp_path)

    assert mfs("workload", "convert", str(path), "--out", "own") == 0
    assert mfs.out.endswith("trace: own, 4 requests\n")
    assert "2 of 4 requests have no ids of blocks" in mfs.out

    assert mfs("workload", "convert", "own", "--out", "own") == 2
    assert "this is the trace that is read" in mfs.err
    assert mfs("workload", "convert", "own", "--out", "other", "--kind", "moon") == 2
    assert "not a known format (known: mooncake," in mfs.err
