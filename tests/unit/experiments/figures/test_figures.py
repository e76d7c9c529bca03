"""Figures and tables for papers: what is drawn, and what is refused."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from record_factory import RESOURCES, serving_record
from toy_fabric import Mfs

from experiments.compare.replicates import MEASURES as COMPARED
from experiments.errors import UserError
from experiments.figures.curves import Curve, named_once, read_curves
from experiments.figures.formats import TableFormat
from experiments.figures.plot import draw_sweep
from experiments.figures.tables import table_text
from experiments.report.chart import PART_COLOURS
from experiments.results.paired import over_replicates
from experiments.results.writing import write_run
from testbed.job import MODEL_SCALE


def cell(policy: str, load: float, seed: int, met: float, **more: Any) -> dict[str, Any]:
    measures = dict.fromkeys(COMPARED) | {"slo_attainment": met}
    return {"policy": policy, "workload.load": load, "seed": seed, "error": None, **measures, **more}


MET = {
    ("fair", 0.2): (0.8, 0.9),
    ("fair", 0.4): (0.4, 0.6),
    ("mfs", 0.2): (0.9, 0.9),
    ("mfs", 0.4): (0.7, 0.9),
}
CELLS = [cell(policy, load, seed, met) for (policy, load), two in MET.items() for seed, met in enumerate(two)]


def sweep(path: Path, cells: list[dict[str, Any]] = CELLS, **over: list[Any]) -> Path:
    path.mkdir()
    content = {
        "over": {"workload.load": [0.4, 0.2], "seed": [0, 1], **over},
        "policies": list(dict.fromkeys(one["policy"] for one in cells)),
        "cells": cells,
    }
    (path / "sweep.json").write_text(json.dumps(content))
    return path


def test_a_curve_has_the_mean_over_seeds_at_each_x_in_order(tmp_path: Path) -> None:
    key, (fair, mfs) = read_curves([sweep(tmp_path / "s")], x=None, y="slo_attainment", where={})
    assert (key, fair.label, fair.x) == ("workload.load", "fair", (0.2, 0.4))
    assert [found.mean for found in fair.y] == pytest.approx([0.85, 0.5])
    assert [found.mean for found in mfs.y] == pytest.approx([0.9, 0.8])
    assert fair.y[0].high == pytest.approx(0.85 + 12.706 * 0.05, abs=1e-4)


def test_other_keys_have_to_be_fixed(tmp_path: Path) -> None:
    two = [cell("fair", 0.2, 0, met, **{"topology.servers": n}) for n, met in ((3, 0.5), (4, 0.7))]
    path = sweep(tmp_path / "s", two, **{"topology.servers": [3, 4]})
    with pytest.raises(UserError, match=re.escape("--where topology.servers=VALUE: 3, 4")):
        read_curves([path], x="workload.load", y="slo_attainment", where={})
    _, (found,) = read_curves([path], x="workload.load", y="slo_attainment", where={"topology.servers": "4"})
    assert found.y[0].mean == 0.7


def test_where_only_replicates_were_swept_there_is_a_point_per_policy(mfs: Mfs, tmp_path: Path) -> None:
    """Means of 0.8 and 0.9, and of 0.9 twice."""
    cells = [one for one in CELLS if one["workload.load"] == 0.2]
    path = sweep(tmp_path / "s", cells)
    content = json.loads((path / "sweep.json").read_text())
    del content["over"]["workload.load"]
    (path / "sweep.json").write_text(json.dumps(content))

    key, curves = read_curves([path], x=None, y="slo_attainment", where={})
    assert key == "policy"
    assert [(one.x, one.y[0].mean) for one in curves] == [(("fair",), pytest.approx(0.85)), (("mfs",), 0.9)]
    assert mfs("table", str(path), "--format", "csv") == 0
    # Of two values 10 apart, the standard error is 5, and the 97.5 % quantile of t with one degree is 12.706.
    assert mfs.out.splitlines() == [
        "policy,SLO met (%),low,high",
        "fair,85.0,21.468976,148.531024",
        "mfs,90.0,90.0,90.0",
    ]
    assert mfs("plot", str(path), "--ci", "--format", "svg") == 0
    drawn = re.findall(r">([^<>]+)</text>", (path / "slo_attainment.svg").read_text())
    assert [name for name in drawn if name in ("fair", "mfs", "policy")] == ["fair", "mfs", "policy"]
    assert mfs("plot", str(path), "--x", "workload.load") == 2
    assert "workload.load: was not swept; only seed or window was swept" in mfs.err


def test_a_point_per_policy_is_at_its_tick(tmp_path: Path) -> None:
    value = over_replicates([0.5, 0.7])
    names = [f"p{i}" for i in range(9)]
    curves = [Curve(label=name, x=(name,), y=(value,)) for name in names]
    (axes,) = draw_sweep(curves, tmp_path / "f.svg", x="policy", y="slo_attainment", intervals=True).axes
    assert [float(bars.lines[0].get_xdata()[0]) for bars in axes.containers] == list(axes.get_xticks())


def test_two_sweeps_of_one_policy_are_told_apart(tmp_path: Path) -> None:
    paths = [sweep(tmp_path / "old"), sweep(tmp_path / "new")]
    _, found = read_curves(paths, x=None, y="slo_attainment", where={})
    assert [one.label for one in found] == ["fair (old)", "mfs (old)", "fair (new)", "mfs (new)"]


def test_curves_that_are_the_same_are_named_once() -> None:
    def curve(label: str, *means: float) -> Curve:
        return Curve(label=label, x=(1, 2), y=tuple(over_replicates([mean]) for mean in means))

    found = named_once([curve("stage", 0.9, 0.5), curve("fair", 0.9, 0.4), curve("karuna", 0.9, 0.5004)])
    assert [one.label for one in found] == ["stage = karuna", "fair"]


@pytest.mark.parametrize(
    ("form", "line"),
    [
        (TableFormat.MARKDOWN, "| mfs | 90.00 ± 0.00 | 80 ± 127 |"),
        (TableFormat.CSV, "mfs,0.4,80.0,-47.062047,207.062047"),
        (TableFormat.LATEX, r"mfs & 90.00 $\pm$ 0.00 & 80 $\pm$ 127 \\"),
    ],
)
def test_a_table_has_means_and_intervals(tmp_path: Path, form: TableFormat, line: str) -> None:
    _, curves = read_curves([sweep(tmp_path / "s")], x=None, y="slo_attainment", where={})
    text = table_text(curves, x="workload.load", y="slo_attainment", form=form)
    assert line in text.splitlines()


def test_latex_escapes_what_it_would_read() -> None:
    curve = Curve(label="mfs_a & 50% #1", x=(1,), y=(over_replicates([0.5]),))
    text = table_text([curve], x="a_b", y="slo_attainment", form=TableFormat.LATEX)
    assert r"mfs\_a \& 50\% \#1 & 50 \\" in text
    assert r"policy & a\_b = 1 \\" in text


@pytest.mark.parametrize("kind", ["pdf", "svg", "png"])
def test_a_figure_is_a_file_of_its_format(mfs: Mfs, tmp_path: Path, kind: str) -> None:
    out = tmp_path / f"figure.{kind}"
    assert mfs("plot", str(sweep(tmp_path / "s")), "--ci", "--out", str(out)) == 0
    assert mfs.out.strip() == str(out)
    assert out.read_bytes().startswith({"pdf": b"%PDF", "svg": b"<?xml", "png": b"\x89PNG"}[kind])
    if kind == "svg":
        assert {"fair", "mfs", "workload.load", "SLO met (%)"} <= set(
            re.findall(r">([^<>]+)</text>", out.read_text())
        )


def test_the_ttft_of_runs_is_drawn(mfs: Mfs, tmp_path: Path) -> None:
    run = tmp_path / "run"
    write_run(
        run,
        scenario="s",
        fabric="sim",
        seed=1,
        scale=MODEL_SCALE,
        resolved_yaml="",
        notes=[],
        records=[serving_record("fair"), serving_record("mfs")],
        placement_text=[],
    )
    assert mfs("plot", str(run), "--format", "svg") == 0
    assert "TTFT (ms)" in (run / "ttft.svg").read_text()


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--x", "topology.servers"], "was not swept; swept are workload.load"),
        (["--x", "seed"], "leave out --x for workload.load, or read each seed in sweep.csv"),
        (["--x", "window"], "--ci their spread"),
        (["--x", "policy"], "choose one with --where workload.load=VALUE: 0.4, 0.2"),
        (["--y", "speed"], "there is no such measure; there are slo_attainment"),
        (["--y", "ttft_mean_s"], "no finished cell has ttft_mean_s"),
        (["--out", "figure.jpg"], "ends in .pdf, .svg, .png"),
        (["--where", "workload.load"], "KEY=VALUE"),
    ],
)
def test_what_cannot_be_drawn_is_told(mfs: Mfs, tmp_path: Path, words: list[str], reason: str) -> None:
    assert mfs("plot", str(sweep(tmp_path / "s")), *words) == 2
    assert reason in mfs.err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a file on a full disk")
@pytest.mark.parametrize("suffix", ["pdf", "svg", "png"])
def test_a_full_disk_is_told(mfs: Mfs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    @contextmanager
    def full(path: Path) -> Iterator[Path]:
        try:
            yield Path("/dev/full")
        except OSError as error:
            error.filename = str(path)
            raise

    monkeypatch.setattr("experiments.figures.plot.replacing", full)
    assert mfs("plot", str(sweep(tmp_path / "s")), "--format", suffix) == 1
    assert "the disk is full" in mfs.err
    assert "Traceback" not in mfs.err


def test_a_directory_without_a_sweep_is_told(mfs: Mfs, tmp_path: Path) -> None:
    assert mfs("table", str(tmp_path)) == 2
    assert "not the directory of a sweep: it holds no sweep.json" in mfs.err


def run_directory(out: Path) -> Path:
    """Eight requests of which the last fails, under two policies."""
    write_run(
        out,
        scenario="small",
        fabric="sim",
        seed=1,
        scale=MODEL_SCALE,
        resolved_yaml="",
        notes=[],
        records=[serving_record(policy, requests=8, layers=3) for policy in ("fair", "mfs")],
        placement_text=[],
        resources=RESOURCES,
    )
    return out


def test_the_parts_of_the_ttft_are_drawn_as_in_the_report(mfs: Mfs, tmp_path: Path) -> None:
    run = run_directory(tmp_path / "run")
    assert mfs("plot", str(run), "--show", "parts", "--format", "svg") == 0
    drawn = (run / "parts.svg").read_text()
    assert all(f">{word}<" in drawn for word in ("fair", "mfs", "S2", "S3 tail"))
    assert all(colour in drawn for colour in (PART_COLOURS["compute_s"], PART_COLOURS["decode_s"]))


def test_a_request_is_drawn_as_in_the_report(mfs: Mfs, tmp_path: Path) -> None:
    run = run_directory(tmp_path / "run")
    assert mfs("plot", str(run), "--request", "2", "--policy", "mfs", "--format", "svg") == 0
    drawn = (run / "request-2.svg").read_text()
    assert all(f">{word}<" in drawn for word in ("prefill: b1", "layer", "rank 4", "S3"))
    assert "rank 0" not in drawn  # batch b1 runs on the other unit


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--request", "2"), "name one of its policies with --policy: fair, mfs"),
        (("--request", "7", "--policy", "mfs"), "no first token under mfs"),
        (("--request", "99", "--policy", "mfs"), "no request 99 under mfs; there are 0 to 7"),
    ],
)
def test_a_request_that_cannot_be_drawn_is_refused(
    mfs: Mfs, tmp_path: Path, options: tuple[str, ...], why: str
) -> None:
    assert mfs("plot", str(run_directory(tmp_path / "run")), *options) == 2
    assert why in mfs.err


@pytest.mark.parametrize(
    ("measure", "label", "shown"),
    [
        ("ceiling_slo_attainment", "ceiling of SLO met (%)", "95"),
        ("ceiling_ttft_mean_s", "ceiling of mean TTFT (ms)", "950"),
        ("background_gbps", "background (Gb/s)", "0.95"),
    ],
)
def test_ceilings_and_background_can_be_tabled(
    mfs: Mfs, tmp_path: Path, measure: str, label: str, shown: str
) -> None:
    path = sweep(tmp_path / "s", [cell("fair", 0.2, 0, 0.5, **{measure: 0.95})])
    assert mfs("table", str(path), "--y", measure) == 0
    assert label in mfs.out
    assert f"| fair | {shown} |" in mfs.out


def test_a_sweep_without_ceiling_says_that_no_cell_has_one(mfs: Mfs, tmp_path: Path) -> None:
    assert mfs("table", str(sweep(tmp_path / "s")), "--y", "ceiling_slo_attainment") == 2
    assert "no finished cell has ceiling_slo_attainment" in mfs.err
