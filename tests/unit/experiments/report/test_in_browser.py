"""Pages in a real browser: nothing is clipped or beside the page on a phone, a screen or paper."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import CHROMIUM, Browser, BrowserFailed
from record_factory import RESOURCES, micro_record, serving_record, unfaithful

from experiments.report.run_report import write_report
from experiments.results.writing import write_run
from experiments.sweep.differences import differences_of
from experiments.sweep.page import write_page
from experiments.sweep.plan import make_plan, read_over
from experiments.sweep.results import Measure
from testbed.job import Scale

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed"),
]

MFS = ("mfs", "mfs(rho=off, layer_boundary=off)", "mfs(levels=8, recheck_ms=2.5) + requests(RED)")
"""Specs as long as they get, which figures and tables name."""
WIDTHS = (390, 800, 1400)
A4_PIXELS = round((210 - 2 * 14) / 25.4 * 96)
"""The width of the text on A4: the paper less the margins of the style sheet, at 96 pixels per inch."""

MEASURE = """
(() => {
  const seen = (element) => element.checkVisibility({contentVisibilityAuto: true});
  const name = (element) => element.tagName + " " + element.textContent.trim().slice(0, 40);
  const inside = (element) => element.closest(".scroll") !== null;
  const light = (text) => {
    const parts = text.match(/[\\d.]+/g).slice(0, 3).map((part) => {
      const share = Number(part) / 255;
      return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
  };
  const contrast = (one, other) => {
    const [low, high] = [light(one), light(other)].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  };
  const page = getComputedStyle(document.body).backgroundColor;
  const found = {wide: [], clipped: [], faint: [], figures: []};
  const width = document.documentElement.clientWidth;
  for (const element of document.body.querySelectorAll("*")) {
    if (!seen(element) || inside(element) || element.closest("svg")) continue;
    if (element.getBoundingClientRect().right > width + 1) found.wide.push(name(element));
    if (element.matches("p, li, td, th, a, summary, figcaption, h1, h2, h3, dt, dd, small")
        && contrast(getComputedStyle(element).color, page) < 4.5) found.faint.push(name(element));
  }
  for (const box of document.querySelectorAll(".scroll")) {
    const reachable = getComputedStyle(box).overflowX === "auto";
    if (seen(box) && !reachable && box.scrollWidth > box.clientWidth + 1) found.clipped.push(name(box));
  }
  for (const svg of document.querySelectorAll("figure svg")) {
    const edges = svg.getBoundingClientRect();
    found.figures.push([edges.width, edges.height, svg.querySelectorAll("path, image").length]);
    for (const text of svg.querySelectorAll("text")) {
      const box = text.getBoundingClientRect();
      if (box.left < edges.left - 1 || box.right > edges.right + 1
          || box.top < edges.top - 1 || box.bottom > edges.bottom + 1) found.clipped.push(name(text));
      const colour = getComputedStyle(text).fill;
      if (colour.startsWith("rgb") && text.style.fill.startsWith("var") && contrast(colour, page) < 4.5)
        found.faint.push(name(text));
    }
  }
  return found;
})()
"""


def serving(out: Path, *policies: str, faithful: bool = True) -> Path:
    checks = {} if faithful else {"fidelity": unfaithful()}
    records = [serving_record(policy, requests=24, layers=4, **checks) for policy in policies]
    return written(out, records)


def written(out: Path, records: list[Any]) -> Path:
    write_run(
        out,
        scenario="small",
        fabric="mininet",
        seed=3,
        scale=Scale(time_dilation=30, bytes_scale=0.001),
        resolved_yaml="name: small\ntopology: {kind: star, servers: 10}\nmodel: mixtral-8x7b\n",
        notes=["arrivals are Poisson at 21.9 requests/s, 0.3 of an estimated capacity of 73"],
        records=records,
        placement_text=["p0: h1 h2 h3 h4"],
        resources=RESOURCES,
        command="mfs run small --set workload.load=0.4 --set units.ranks_per_unit=8 --policy mfs --seed 7",
    )
    return write_report([out], out / "report.html")


def sweep(out: Path) -> Path:
    """Two keys, eight seeds and three policies, of which the second is better by 0.1."""
    out.mkdir()
    over = [read_over(text) for text in ("topology.servers=3,4", "topology.nic_gbps=25,50", "seed=1:8")]
    plan = make_plan("two-flows", over=over, policies=("fair", "mfs", "stage"), fabric="sim")
    rows = [
        dict.fromkeys(Measure)
        | {
            **cell.values,
            "policy": cell.policy,
            "seed": cell.scenario.seed,
            Measure.SLO_ATTAINMENT: 0.5 + 0.05 * (cell.scenario.seed % 3) + 0.1 * (cell.policy == "mfs"),
            Measure.TTFT_MEAN_S: 0.3 + 0.01 * cell.scenario.seed,
            Measure.TTFT_P99_S: 0.9,
            Measure.CCT_MEAN_S: 0.002,
            Measure.LIMIT: "network",
            Measure.FAITHFUL: True,
            "error": None,
            "cell": f"cells/{cell.name}",
        }
        for cell in plan.cells
    ]
    return write_page(out, plan, rows, command="mfs sweep two-flows", differences=differences_of(plan, rows))


PAGES = {
    "a policy": (lambda out: serving(out, "mfs"), 8 + 2),
    "four policies": (lambda out: serving(out, "fair", *MFS), 8 + 8),
    "not faithful": (lambda out: serving(out, "fair", "mfs", faithful=False), 8 + 4),
    "single flows": (lambda out: written(out, [micro_record()]), 4),
    "a sweep": (sweep, 1),
}
"""Pages, and how many figures they have."""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module", params=list(PAGES))
def figures(
    request: pytest.FixtureRequest, browser: Browser, tmp_path_factory: pytest.TempPathFactory
) -> int:
    """Open a page, and say how many figures it has."""
    make, figures = PAGES[request.param]
    browser.open(make(tmp_path_factory.mktemp("pages") / "page"))
    return figures


def test_nothing_is_clipped_or_beside_the_page_and_every_figure_is_there(
    browser: Browser, figures: int
) -> None:
    browser.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
    for width in WIDTHS:
        browser.look(width=width)
        found = browser.evaluate(MEASURE)
        assert (width, found["wide"], found["clipped"]) == (width, [], [])
        assert len(found["figures"]) == figures
        assert all(wide > 200 and high > 50 and drawn > 2 for wide, high, drawn in found["figures"])


def test_texts_stand_out_in_light_and_dark(browser: Browser, figures: int) -> None:
    for dark in (False, True):
        browser.look(width=800, dark=dark)
        assert (dark, browser.evaluate(MEASURE)["faint"]) == (dark, [])


def test_it_prints_on_a4(browser: Browser, figures: int) -> None:
    """Of 210 x 297 mm, which are 595 x 842 points. Folded tables are printed, the scenario is not."""
    browser.evaluate("for (const one of document.querySelectorAll('details')) one.open = false")
    browser.look(width=A4_PIXELS, dark=True, medium="print")
    found = browser.evaluate(MEASURE)
    assert (found["wide"], found["clipped"], found["faint"]) == ([], [], [])
    shown = browser.evaluate(
        "[...document.querySelectorAll('details')].map((one) => [one.className,"
        " one.offsetHeight > one.firstChild.offsetHeight + 20])"
    )
    assert all(is_shown == (kind != "unprinted") for kind, is_shown in shown)
    browser.look(width=1000)
    printed = browser.pdf()
    assert printed.startswith(b"%PDF-")
    assert b"/MediaBox [0 0 594.95996 841.91998]" in printed


def test_no_page_has_an_error_on_the_console(browser: Browser, figures: int) -> None:
    assert browser.errors == []


def test_a_page_with_errors_and_wide_or_faint_text_does_not_pass(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "bad.html"
    path.write_text(
        "<!doctype html><body style='background:#fff'><p style='width:500px;color:#999'>text</p>"
        "<figure><svg width=100 height=60><text x=90 y=20>beyond</text></svg></figure>"
        "<script>console.error('wrong'); nothing.there</script>"
    )
    browser.open(path)
    browser.look(width=390)
    found = browser.evaluate(MEASURE)
    assert found["wide"] == ["P text"]
    assert found["faint"] == ["P text"]
    assert found["clipped"] == ["text beyond"]
    assert len(browser.errors) == 2


def test_a_browser_that_ends_is_a_failure_with_its_last_words(tmp_path: Path) -> None:
    broken = tmp_path / "chromium"
    broken.write_text("#!/bin/sh\necho no display >&2\nexit 1\n")
    broken.chmod(0o755)
    with pytest.raises(BrowserFailed, match="it ended\nno display"):
        Browser(tmp_path, str(broken))
