"""A synthesised trace has the statistics that were asked for, as its description shows."""

import math
from pathlib import Path
from statistics import NormalDist

import pytest
from burstiness import index_of_dispersion
from typer.testing import CliRunner

from experiments.cli.app import app
from experiments.errors import UserError
from experiments.trace_formats.formats import TraceFormat
from experiments.traces.describe import Description, describe
from experiments.traces.reading import read_columns
from experiments.traces.synth import (
    LogNormal,
    Wanted,
    by_mean,
    by_percentiles,
    check,
    like,
    synthesise,
    write_trace,
)
from experiments.workloads.arrivals import bursty_process

ASKED = Wanted(
    requests=4000, rate_rps=8.0, prompt=by_mean(4000, 0.8), output=by_mean(300, 0.5), reuse=0.6, prefixes=20
)


def described(folder: Path, wanted: Wanted) -> Description:
    path = folder / "made.jsonl"
    write_trace(path, synthesise(wanted))
    return describe(read_columns(path, TraceFormat.MOONCAKE))


def test_lengths_by_mean_and_by_percentiles_are_the_same_law() -> None:
    """mu 7, sigma 0.5: mean exp(7.125), cv**2 exp(0.25) - 1, median exp(7), p99 exp(7 + 0.5 * 2.3263)."""
    law = LogNormal(mu=7, sigma=0.5)

    by_moments = by_mean(math.exp(7.125), math.sqrt(math.exp(0.25) - 1))
    by_ranks = by_percentiles(math.exp(7), math.exp(7 + 0.5 * NormalDist().inv_cdf(0.99)))

    for found in (by_moments, by_ranks):
        assert (found.mu, found.sigma) == (pytest.approx(7), pytest.approx(0.5))
    assert (law.mean, law.cv) == (pytest.approx(math.exp(7.125)), pytest.approx(by_moments.cv))


def test_rate_lengths_and_reuse_are_as_asked(tmp_path: Path) -> None:
    """Rate to 0.1 % (stamps are milliseconds), mean lengths to 2 %, their spread to 5 %, reuse to a point."""
    found = described(tmp_path, ASKED)

    assert found.requests == 4000
    assert found.arrivals.rate_rps == pytest.approx(8.0, rel=0.001)
    assert found.prompt_tokens.mean == pytest.approx(4000, rel=0.02)
    assert found.prompt_tokens.cv == pytest.approx(0.8, rel=0.05)
    assert found.output_tokens.mean == pytest.approx(300, rel=0.02)
    assert found.output_tokens.cv == pytest.approx(0.5, rel=0.05)
    assert found.reuse.token_share == pytest.approx(0.6, abs=0.01)
    assert found.reuse.prefixes == 20
    # The least popular one has 4000 / 20 / 3.6 = 56 users, plus or minus 7.
    assert found.reuse.zipf == pytest.approx(1.0, abs=0.15)


def test_median_and_99th_percentile_are_as_asked(tmp_path: Path) -> None:
    """To 2 and 5 %."""
    wanted = Wanted(
        requests=4000, rate_rps=1, prompt=by_percentiles(1500, 9000), output=by_percentiles(100, 800)
    )

    found = described(tmp_path, wanted)

    assert found.prompt_tokens.p50 == pytest.approx(1500, rel=0.02)
    assert found.prompt_tokens.p99 == pytest.approx(9000, rel=0.05)
    assert found.output_tokens.p50 == pytest.approx(100, rel=0.02)
    assert found.output_tokens.p99 == pytest.approx(800, rel=0.05)
    assert found.reuse.token_share == 0


def test_arrivals_without_a_dispersion_are_poisson(tmp_path: Path) -> None:
    """4,000 at 8/s are 500 windows of 1 s: the variance is known to sqrt(2 / 500) = 6.3 %; 3 times that."""
    arrivals = described(tmp_path, ASKED).arrivals

    assert arrivals.dispersion[1] == pytest.approx(1, abs=0.19)
    assert arrivals.gap_cv == pytest.approx(1, abs=0.05)


def test_the_dispersion_is_as_asked(tmp_path: Path) -> None:
    """40,000 at 20/s are 200 windows of 10 s: known to 10 %. It may be off the formula by 20 %."""
    wanted = Wanted(
        requests=40_000,
        rate_rps=20.0,
        dispersion=6.0,
        prompt=by_mean(100, 0.1),
        output=by_mean(10, 0.1),
    )
    process = bursty_process(20.0, 6.0)

    found = described(tmp_path, wanted).arrivals

    assert found.dispersion[1] == pytest.approx(index_of_dispersion(process, 1), rel=0.1)
    assert found.dispersion[10] == pytest.approx(index_of_dispersion(process, 10), rel=0.2)
    assert index_of_dispersion(process, 10) == pytest.approx(6, rel=0.03)


def test_a_popular_text_is_used_more_than_the_next(tmp_path: Path) -> None:
    """Two texts, used in proportion 1 to 2**-2: four in five requests begin with the first."""
    wanted = Wanted(
        requests=4000,
        rate_rps=1,
        prompt=by_mean(2048, 0),
        output=by_mean(10, 0),
        reuse=0.5,
        prefixes=2,
        zipf=2,
    )

    most, next_one = described(tmp_path, wanted).reuse.most_shared[:2]

    # 2 of 4 blocks are shared: both texts have 1024 tokens, except for the first requests, which catch up.
    assert most.requests / 4000 == pytest.approx(0.8, abs=0.03)
    assert most.requests > next_one.requests


def test_a_trace_like_another_has_its_statistics(tmp_path: Path) -> None:
    """Like a bursty one: dispersion within a third (it is measured twice), the rest as above."""
    (tmp_path / "model").mkdir()
    model = described(
        tmp_path / "model",
        Wanted(
            requests=20_000,
            rate_rps=20.0,
            dispersion=5.0,
            burst_s=0.5,
            prompt=by_mean(3000, 0.7),
            output=by_mean(200, 0.4),
            reuse=0.4,
            prefixes=30,
            zipf=0.8,
        ),
    )

    found = described(tmp_path, like(model))

    assert found.requests == 20_000
    assert found.arrivals.rate_rps == pytest.approx(20, rel=0.001)
    for window in (1, 10):
        assert found.arrivals.dispersion[window] == pytest.approx(model.arrivals.dispersion[window], rel=0.33)
    assert found.prompt_tokens.mean == pytest.approx(3000, rel=0.02)
    assert found.output_tokens.cv == pytest.approx(0.4, rel=0.05)
    assert found.reuse.token_share == pytest.approx(0.4, abs=0.01)


def test_the_seed_decides() -> None:
    few = Wanted(requests=50, rate_rps=1, prompt=by_mean(2000, 1), output=by_mean(50, 1), reuse=0.5)
    other = Wanted(requests=50, rate_rps=1, prompt=by_mean(2000, 1), output=by_mean(50, 1), reuse=0.5, seed=2)

    assert list(synthesise(few)) == list(synthesise(few))
    assert list(synthesise(few)) != list(synthesise(other))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--prompt-p50", "100"], "--prompt-p50 and --prompt-p99 go together"),
        (["--prompt-p50", "100", "--prompt-p99", "200", "--prompt-cv", "1"], "without --prompt-mean"),
        (["--prompt-p50", "100", "--prompt-p99", "50"], "is below --prompt-p50"),
        (["--burst-s", "2"], "--burst-s needs a --dispersion above 1"),
        (["--prompt-mean", "1e9"], "1e+09 tokens on average; allowed is 1 .."),
    ],
)
def test_options_that_make_no_trace_are_refused(tmp_path: Path, options: list[str], told: str) -> None:
    out = tmp_path / "t.jsonl"

    result = CliRunner().invoke(app, ["workload", "synth", "--out", str(out), *options])

    assert result.exit_code == 2
    assert told in result.output
    assert not out.exists()


def test_lengths_without_a_spread_are_all_the_same() -> None:
    at_once = Wanted(requests=1, rate_rps=1, prompt=by_mean(600, 0), output=by_mean(1, 0))
    check(at_once)
    (only,) = synthesise(at_once)
    assert only.prompt_tokens == 600


def test_the_command_shows_what_it_wrote_beside_its_model(tmp_path: Path) -> None:
    model, made = tmp_path / "model.jsonl", tmp_path / "made.jsonl"
    runner = CliRunner()

    first = runner.invoke(app, ["workload", "synth", "--out", str(model), "--requests", "400", "--rate", "5"])
    second = runner.invoke(
        app, ["workload", "synth", "--out", str(made), "--like", str(model), "--requests", "300"]
    )

    assert first.exit_code == second.exit_code == 0, first.output + second.output
    assert "model.jsonl" in second.output
    found = describe(read_columns(made, TraceFormat.MOONCAKE))
    assert (found.requests, found.arrivals.rate_rps) == (300, pytest.approx(5, rel=0.01))


def test_too_many_texts_for_the_reuse_that_is_asked_for_are_told(tmp_path: Path) -> None:
    """Each of ten requests probably begins with another text, so there is next to nothing to reuse."""
    options = ["--requests", "10", "--reuse", "0.9", "--prefixes", "100000", "--zipf", "0"]

    told = CliRunner().invoke(app, ["workload", "synth", "--out", str(tmp_path / "t.jsonl"), *options])

    assert "asked for 90.0% of the prompt tokens to be reused" in told.output


def test_a_reuse_that_nobody_asked_for_is_not_said_to_be(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    told = CliRunner().invoke(app, ["workload", "synth", "--out", str(path), "--prompt-mean", "4"])

    assert "the default is 50.0% of the prompt tokens to be reused: prompts are too short" in told.output


def test_a_model_without_a_rate_needs_one(tmp_path: Path) -> None:
    path = tmp_path / "once.jsonl"
    write_trace(
        path, synthesise(Wanted(requests=1, rate_rps=1, prompt=by_mean(600, 0), output=by_mean(1, 0)))
    )

    found = describe(read_columns(path, TraceFormat.MOONCAKE))
    with pytest.raises(UserError, match="arrive at once"):
        like(found)
    assert like(found, rate_rps=2.0).rate_rps == 2.0
    command = ["workload", "synth", "--like", str(path), "--rate", "2", "--out", str(tmp_path / "t.jsonl")]
    assert CliRunner().invoke(app, command).exit_code == 0
