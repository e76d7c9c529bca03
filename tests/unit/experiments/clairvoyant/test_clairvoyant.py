"""`mfs clairvoyant` from the command line."""

import json
from pathlib import Path
from typing import Any

import pytest
from toy_fabric import Mfs

from experiments.clairvoyant import run
from experiments.clairvoyant.question import Question
from experiments.sweep.plan import read_over

SMALL = ("quickstart", "--set", "workload.requests=12", "--set", "workload.load=1.2", "--evaluations", "100")


def test_the_best_schedule_is_no_worse_than_static_orders_and_below_the_ceiling(
    mfs: Mfs, tmp_path: Path
) -> None:
    asked = (
        "clairvoyant",
        *SMALL,
        "--policy",
        "fair",
        "--policy",
        "static",
        "--over",
        "seed=1:2",
        "--out",
        "c",
    )
    assert mfs(*asked) == 0
    content = json.loads((tmp_path / "c" / "clairvoyant.json").read_text())

    for one in content["replicates"].values():
        assert one["found"]["score"] >= one["start"]["score"] >= one["policies"]["static"]["score"]
        assert one["ceiling"]["ttft_mean_s"] <= one["found"]["ttft_mean_s"]
    rows = {row["policy"]: row for row in content["rows"]}
    assert list(rows) == ["fair", "static", "best found", "ceiling"]
    paired = [
        one["found"]["ttft_mean_s"] - one["policies"]["fair"]["ttft_mean_s"]
        for one in content["replicates"].values()
    ]
    assert rows["fair"]["ttft"]["mean"] == pytest.approx(sum(paired) / 2)
    assert "in exact order" in mfs.out

    # A replicate that is gone is searched again, and the other one is taken as it is.
    kept = tmp_path / "c" / "seed=1.json"
    then = kept.stat().st_mtime_ns
    (tmp_path / "c" / "seed=2.json").unlink()
    assert mfs(*asked, "--json") == 0
    assert json.loads(mfs.out)["rows"] == content["rows"]
    assert kept.stat().st_mtime_ns == then

    # Another question in the same directory is refused.
    assert mfs(*asked, "--parts", "1") == 2
    assert "is not empty" in mfs.err


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("two-flows",), "has no requests"),
        ((*SMALL, "--over", "workload.load=1,2"), "other keys are set with --set"),
        ((*SMALL, "--set", "serving.batches_of=mfs"), "use --batches-of"),
        ((*SMALL, "--set", "workload.background.gbps=4"), "no key for background transfers"),
        ((*SMALL, "--batches-of", "mfs + requests"), "its batches are its own"),
        ((*SMALL, "--evaluations", "5"), "--evaluations"),
    ],
)
def test_a_question_without_an_answer_is_refused(mfs: Mfs, options: tuple[str, ...], told: str) -> None:
    assert mfs("clairvoyant", *options) == 2
    assert told in mfs.err


def test_an_interrupted_search_tells_how_many_replicates_are_through_and_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second replicate is interrupted. Without `out`, the command names the directory that was made."""

    def interrupted(work: Any, *, through: Any, **_: Any) -> None:
        through(work[0][0], {"found": {}})
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run, "run_side_by_side", interrupted)
    question = Question(scenario="quickstart", policies=("fair",), replicates=read_over("seed=1:2"))
    with pytest.raises(KeyboardInterrupt) as stopped:
        run.find_schedules(question, out=None, jobs=1, progress=lambda *_: None, command="mfs clairvoyant x")
    (note,) = stopped.value.__notes__
    directory = next((tmp_path / "runs").iterdir())
    assert note.startswith("1 of 2 replicates are through; to go on: mfs clairvoyant x --out ")
    assert note.endswith(directory.name)
