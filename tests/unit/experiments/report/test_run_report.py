"""The report is one self-contained page, agrees with the tables, and escapes what it shows."""

import re
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import numpy as np
import pytest
from record_factory import RESOURCES, micro_record, serving_record, unfaithful
from result_rows import flow_row

from controller.flow import Level, Stage
from experiments.errors import UserError
from experiments.report import serving_figures
from experiments.report.chart import draw_cdf, new_figure
from experiments.report.run_report import write_report
from experiments.report.series import series_of
from experiments.results.distributions import POINTS
from experiments.results.reading import read_run
from experiments.results.writing import write_run
from testbed.job import Scale
from testbed.record import RunRecord
from workers.spans import SpanKind

REQUESTS = (
    ("fair", "6, the median"),
    ("fair", "4, the worst"),
    ("mfs", "0, the median"),
    ("mfs", "2, the worst"),
)
"""Of seven requests with a first token and equal SLOs: the fourth and the seventh by TTFT."""
VOID = {"meta", "br", "link", "img", "input", "hr"}


class Page(HTMLParser):
    """Checks that elements close in order; collects the text and every address that the page refers to."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.headings: list[str] = []
        self.words: list[str] = []
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        names = ("src", "href", "xlink:href")
        self.addresses += [value or "" for name, value in attrs if name in names]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = ("src", "href", "xlink:href")
        self.addresses += [value or "" for name, value in attrs if name in names]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("h1", "h2", "h3"):
            self.headings.append(data)
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def write(out: Path, *records: RunRecord, note: str = "a note") -> Path:
    write_run(
        out,
        scenario="small",
        fabric="mininet",
        seed=3,
        scale=Scale(time_dilation=30, bytes_scale=0.001),
        resolved_yaml="name: small\ntopology: {kind: star, servers: 10}\nmodel: mixtral-8x7b\n",
        notes=[note],
        records=list(records),
        placement_text=["p0: h1 h2 h3 h4"],
        resources=RESOURCES,
        command="mfs run small",
    )
    write_report([out], out / "report.html")
    return out


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    records = (serving_record("fair", requests=8, layers=3, slow=1.3), serving_record(requests=8))
    return write(tmp_path_factory.mktemp("runs") / "first", *records)


@pytest.fixture(scope="module")
def page(run: Path) -> Page:
    return Page((run / "report.html").read_text())


def test_the_page_is_well_formed_and_links_only_to_files_of_its_run(run: Path, page: Page) -> None:
    assert page.open == []
    outside = [address for address in page.addresses if not address.startswith(("#", "data:"))]
    assert {"summary.json", "flows.parquet", "fair/trace.json.gz", "mfs/trace.json.gz"} <= set(outside)
    assert all((run / address).is_file() for address in outside)


def test_a_report_elsewhere_links_to_the_files_of_its_run(run: Path, tmp_path: Path) -> None:
    (tmp_path / "pages").mkdir()
    out = write_report([run], tmp_path / "pages" / "both.html")
    outside = [address for address in Page(out.read_text()).addresses if "parquet" in address]
    assert len(outside) == 6
    assert all((out.parent / address).is_file() for address in outside)


def test_every_section_is_in_the_contents(run: Path) -> None:
    source = (run / "report.html").read_text()
    anchors = re.findall(r"<li><a href='#([^']+)'>", source)
    assert len(anchors) == 10
    assert anchors == re.findall(r"<section id='([^']+)'>", source)


def test_the_page_loads_no_script_style_or_font(run: Path) -> None:
    source = (run / "report.html").read_text()
    assert not re.search(r"<script|<link|@import|url\((?!#)", source)


def test_the_sections_of_a_serving_report_are_there(page: Page) -> None:
    wanted = ["small", "Results", "Time to first token", "Where the time goes", "Stages", "One request"]
    wanted += [f"{policy}, request {which}" for policy, which in REQUESTS]
    wanted += ["Levels", "Links", "How far to trust it", "What was run", "Tables and traces"]
    assert [heading.rpartition(":")[0] or heading for heading in page.headings] == wanted


def test_the_prefix_caches_are_there_by_unit_and_in_all(page: Page) -> None:
    """8 requests with 512 local, 512 fetched and 512 missed tokens: 4,096 of each kind, a third of all;
    half of that on each of two units, which evicted 7 blocks each."""
    for line in ("p0 4 8,192 2,048 33.3 % 2,048 33.3 % 2,048 33.3 % 7", "all 8 16,384 4,096 33.3 %"):
        assert line in page.text


def test_facts_notes_and_command_are_on_the_page(page: Page) -> None:
    assert "kind star, servers 10" in page.text
    assert "{" not in page.text[page.text.index("kind star") : page.text.index("p0: h1")]
    assert "background" not in page.text[page.text.index("kind star") : page.text.index("p0: h1")]  # off
    assert "p0: h1 h2 h3 h4" in page.text
    assert "a note" in page.text
    assert "mfs run small" in page.text
    assert "7/8" in page.text


def test_figures_follow_the_colours_of_the_page(run: Path) -> None:
    source = (run / "report.html").read_text()
    assert source.count("<svg") == 7 + 1 + 4  # the parts of the TTFT, and four requests
    assert "var(--ink)" in source
    assert "#123457" not in source


def test_a_figure_of_a_sample_says_so(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """8 requests in 4 batches: 3 layers x (4 S1 + 4 S2) x 4 + 3 x 8 S3 are 120 flows under `fair`, and 320
    with 8 layers under `mfs`."""
    assert "a sample of" not in Page((run / "report.html").read_text()).text
    monkeypatch.setattr(serving_figures, "SAMPLE", 200)
    text = Page(write_report([run], tmp_path / "sampled.html").read_text()).text
    assert (
        "Flows in flight by level, the most urgent at the bottom. mfs: a sample of 200 of 320 flows." in text
    )


def test_a_sample_stands_for_all_flows(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Estimated from half of the flows, the flow-seconds of a run stay about the same."""
    _, mfs = series_of([read_run(run)])
    edges = np.linspace(0.0, mfs.run["duration_s"], 11)
    whole = serving_figures.active_flows(mfs, edges).sum()
    monkeypatch.setattr(serving_figures, "SAMPLE", 160)
    assert serving_figures.active_flows(mfs, edges).sum() == pytest.approx(whole, rel=0.15)


def test_an_unfaithful_run_is_announced_with_what_to_change(tmp_path: Path) -> None:
    record = msgspec.structs.replace(micro_record(), fidelity=unfaithful())
    text = Page((write(tmp_path / "r", record) / "report.html").read_text()).text
    assert "Not faithful." in text
    assert "CPU headroom is 0.04 under mfs, wanted >= 0.10. Raise scale.time_dilation." in text


def test_advice_is_given_once_for_all_policies(tmp_path: Path) -> None:
    records = [msgspec.structs.replace(micro_record(name), fidelity=unfaithful()) for name in ("fair", "mfs")]
    text = Page((write(tmp_path / "r", *records) / "report.html").read_text()).text
    assert "CPU headroom is 0.04 under fair, 0.04 under mfs, wanted >= 0.10." in text
    assert text.count("Raise scale.time_dilation.") == 1


def test_several_directories_are_compared_and_told_apart(tmp_path: Path) -> None:
    first = write(tmp_path / "first", micro_record("mfs"))
    second = write(tmp_path / "second", micro_record("mfs"))
    out = write_report([first, second], tmp_path / "both.html")
    text = Page(out.read_text()).text
    assert "mfs (first), mfs (second) on the fabric mininet, seed 3" in text
    assert "What was run (second)" in text


def test_sections_that_are_made_in_processes_are_the_same_bytes(tmp_path: Path) -> None:
    run = tmp_path / "m"
    write(run, micro_record())

    beside = write_report([run], run / "beside.html", jobs=2).read_text()

    assert beside == write_report([run], run / "beside.html").read_text()


def test_names_from_a_run_cannot_become_markup(tmp_path: Path) -> None:
    evil = "<img src=x onerror=1>$\\frac$"
    out = write(tmp_path / "r", micro_record(evil), note="</style><script>alert(1)</script>")
    source = (out / "report.html").read_text()
    assert "<script" not in source
    assert "<img" not in source
    assert evil in Page(source).text


def test_a_micro_report_shows_each_flow_and_its_promotion(tmp_path: Path) -> None:
    page = Page((write(tmp_path / "m", micro_record()) / "report.html").read_text())
    assert page.headings[:3] == ["small", "Flows", "Links"]
    assert "flows that were promoted" in page.text
    assert "100 ms P1 MLU 0.53 >= 0.50" in page.text
    assert "Time to first token" not in page.headings


def test_of_many_micro_flows_the_page_shows_the_first(tmp_path: Path) -> None:
    flows = tuple(flow_row(id=f"f{i:03}", submit_ns=i, finish_ns=i + 1) for i in range(250))
    record = msgspec.structs.replace(micro_record(), flows=flows, decisions=(), progress=(), links=())
    text = Page((write(tmp_path / "many", record) / "report.html").read_text()).text
    assert "At most the first 200 flows are shown." in text
    assert "f199" in text
    assert "f200" not in text


def test_a_run_in_which_nothing_was_measured_still_makes_a_page(tmp_path: Path) -> None:
    bare = msgspec.structs.replace(
        micro_record(), decisions=(), links=(), progress=(), flows=(flow_row(level_last=Level.P3),)
    )
    text = Page((write(tmp_path / "bare", bare) / "report.html").read_text()).text
    assert "No flow was promoted." in text


def test_a_serving_run_in_which_every_request_failed_still_makes_a_page(tmp_path: Path) -> None:
    record = serving_record(requests=2, layers=2)
    failed = tuple(
        msgspec.structs.replace(row, status="failed", ttft_ns=None, first_token_ns=None)
        for row in record.requests
    )
    lost = msgspec.structs.replace(record, requests=failed, flows=(), links=(), spans=())
    assert "0/2" in Page((write(tmp_path / "lost", lost) / "report.html").read_text()).text


def test_panels_without_data_say_so(tmp_path: Path, page: Page) -> None:
    record = serving_record(requests=4, layers=2)
    flows = tuple(row for row in record.flows if row.stage is not Stage.KV_REUSE)
    waits = tuple(span for span in record.spans if span.kind != SpanKind.S1_WAIT)
    bare = msgspec.structs.replace(record, flows=flows, spans=waits)
    text = Page((write(tmp_path / "bare", bare) / "report.html").read_text()).text
    assert "no S1 flow" in text
    assert "no wait for reused KV" in text
    assert "no S2 flow" not in text
    assert "no S1 flow" not in page.text
    assert "no wait for reused KV" not in page.text


def test_the_same_run_gives_the_same_page(tmp_path: Path) -> None:
    run = write(tmp_path / "r", micro_record())
    again = write_report([run], run / "again.html")
    assert again.read_text() == (run / "report.html").read_text()


def test_a_curve_of_many_flows_is_thinned_without_losing_its_ends() -> None:
    _, (axes,) = new_figure(1, 1, height=1.0)
    draw_cdf(axes, range(20_000), label="mfs", colour="#000000", total=40_000)
    x, y = (np.asarray(values) for values in axes.lines[0].get_data())
    assert len(x) <= POINTS + 1
    assert (x[0], y[0]) == (0, 0)
    assert (x[-1], y[-1]) == (19_999, 0.5)


def test_no_run_is_nothing_to_report(tmp_path: Path) -> None:
    write(tmp_path / "one", micro_record())
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="nothing to report"):
        write_report([], tmp_path / "report.html")
    with pytest.raises(UserError, match="not the directory of a finished run"):
        write_report([tmp_path / "one", tmp_path / "empty"], tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()
