"""`mfs workload`: describing traces, converting them, and making traces with given statistics."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from experiments.cli.endings import told_to_the_user
from experiments.cli.preparation_display import reading_shown
from experiments.cli.streams import stdout
from experiments.errors import UserError

if TYPE_CHECKING:
    from experiments.trace_formats.formats import TraceFormat

workload = typer.Typer(help="Describe traces of requests, convert them, or make them.", no_args_is_help=True)

_KIND = "Format of the trace, as workload.kind names it; default: detected from its first line."


@workload.command("describe")
def workload_describe(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A trace file.")],
    kind: Annotated[str | None, typer.Option(help=_KIND)] = None,
    skip: Annotated[int, typer.Option(min=0, help="Requests to leave out at the start.")] = 0,
    requests: Annotated[int | None, typer.Option(min=1, help="Requests to take; default: all.")] = None,
    as_stamped: Annotated[
        bool, typer.Option("--as-stamped", help="Do not spread arrivals inside the tick of a coarse clock.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Also write describe.json and workload.html there.")
    ] = None,
    json_only: Annotated[
        bool, typer.Option("--json", help="Print describe.json, and nothing else, on standard output.")
    ] = False,
) -> None:
    """Describe a trace: its arrivals, its lengths, and how much of its prompts can be reused."""
    with told_to_the_user():
        from experiments.traces.describe import as_json, describe, description_table
        from experiments.traces.reading import read_columns

        if out is not None and out.exists() and not out.is_dir():
            raise UserError(f"--out {out}: is a file; name a directory")
        format = _format_of(file, kind)
        with reading_shown():
            columns = read_columns(file, format, skip=skip, requests=requests, spread_ticks=not as_stamped)
        found = describe(columns)
        page = None
        if out is not None:
            from experiments.traces.page import write_description  # imported late: it loads matplotlib

            page = write_description(out, file.name, columns, found)
        if json_only:
            print(as_json(found), end="")
            return
        stdout().print(description_table(f"{file.name}, {format.value}", [("", found)]))
        for note in found.notes:
            print(note)
        if page is not None:
            print(f"page: {page}")


@workload.command("convert")
def workload_convert(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A trace file.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The trace to write, in the testbed's format.")],
    kind: Annotated[str | None, typer.Option(help=_KIND)] = None,
    sort: Annotated[
        bool, typer.Option("--sort", help="Sort the requests by time; they must all fit into memory.")
    ] = False,
) -> None:
    """Write a trace of any format in the testbed's own, `requests`."""
    with told_to_the_user():
        from experiments.traces.convert import convert

        if not out.absolute().parent.is_dir():
            raise UserError(f"--out {out}: there is no directory {out.parent}")
        if out.exists() and out.samefile(file):
            raise UserError(f"--out {out}: this is the trace that is read")
        with reading_shown():
            written = convert(file, _format_of(file, kind), out, sort=sort)
        for note in written.notes:
            print(note)
        print(f"trace: {out}, {written.requests:,} requests")


def _format_of(file: Path, kind: str | None) -> "TraceFormat":
    from experiments.trace_formats.formats import TraceFormat, detect_format

    if kind is None:
        return detect_format(file)
    known = {format.value: format for format in TraceFormat}
    if kind not in known:
        raise UserError(f"--kind {kind}: not a known format (known: {', '.join(known)})")
    return known[kind]


@workload.command("synth")
def workload_synth(
    out: Annotated[Path, typer.Option(metavar="FILE", help="The trace to write, in Mooncake's format.")],
    requests: Annotated[
        int | None, typer.Option(min=1, max=10_000_000, help="Number of requests; default: 1000.")
    ] = None,
    rate: Annotated[
        float | None, typer.Option(min=1e-6, max=1e6, help="Mean rate, requests/s; default: 1.")
    ] = None,
    dispersion: Annotated[
        float | None,
        typer.Option(
            min=1,
            max=1e6,
            help="Variance / mean of arrivals counted in long windows; default: 1, a Poisson process.",
        ),
    ] = None,
    burst_s: Annotated[
        float | None,
        typer.Option(
            min=1e-6, max=1e6, help="Mean length of a burst, seconds; default: half the time is in bursts."
        ),
    ] = None,
    prompt_mean: Annotated[
        float | None, typer.Option(min=1, help="Mean tokens of a prompt; default: 2000.")
    ] = None,
    prompt_cv: Annotated[
        float | None, typer.Option(min=0, max=100, help="Their standard deviation / mean; default: 1.")
    ] = None,
    prompt_p50: Annotated[
        float | None, typer.Option(min=1, help="Median tokens of a prompt, with --prompt-p99.")
    ] = None,
    prompt_p99: Annotated[float | None, typer.Option(min=1, help="Their 99th percentile.")] = None,
    output_mean: Annotated[
        float | None, typer.Option(min=1, help="Mean tokens of an answer; default: 250.")
    ] = None,
    output_cv: Annotated[
        float | None, typer.Option(min=0, max=100, help="Their standard deviation / mean; default: 1.")
    ] = None,
    reuse: Annotated[
        float | None,
        typer.Option(min=0, max=0.99, help="Share of prompt tokens seen in earlier prompts; default: 0.5."),
    ] = None,
    prefixes: Annotated[
        int | None,
        typer.Option(min=1, max=1_000_000, help="Number of texts that prompts begin with; default: 16."),
    ] = None,
    zipf: Annotated[
        float | None,
        typer.Option(
            min=0, max=10, help="Text i is chosen in proportion to i**-ZIPF; default: 1; 0: all alike."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything drawn at random.")] = 1,
    like: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A trace whose statistics replace the defaults of the options."),
    ] = None,
) -> None:
    """Write a trace with given statistics, and show those that it has."""
    with told_to_the_user():
        import msgspec

        from experiments.trace_formats.formats import TraceFormat, detect_format
        from experiments.traces import synth
        from experiments.traces.describe import describe, description_table
        from experiments.traces.reading import read_columns

        if not out.absolute().parent.is_dir():
            raise UserError(f"--out {out}: there is no directory {out.parent}")
        model = None
        wanted = synth.Wanted(
            requests=1000,
            rate_rps=1.0,
            prompt=synth.by_mean(2000, 1),
            output=synth.by_mean(250, 1),
            reuse=0.5,
        )
        if like is not None:
            with reading_shown():
                model = describe(read_columns(like, detect_format(like)))
            wanted = synth.like(model, rate_rps=rate)
        bursts = {} if dispersion is None else {"dispersion": dispersion, "burst_s": None}
        given = {
            "requests": requests,
            "rate_rps": rate,
            "reuse": reuse,
            "prefixes": prefixes,
            "zipf": zipf,
            "prompt": synth.lengths(
                "prompt", wanted.prompt, mean=prompt_mean, cv=prompt_cv, p50=prompt_p50, p99=prompt_p99
            ),
            "output": synth.lengths("output", wanted.output, mean=output_mean, cv=output_cv),
            "seed": seed,
        }
        wanted = msgspec.structs.replace(
            wanted, **bursts, **{name: value for name, value in given.items() if value is not None}
        )
        if burst_s is not None:
            wanted = msgspec.structs.replace(wanted, burst_s=burst_s)
        synth.check(wanted)
        synth.write_trace(out, synth.synthesise(wanted))
        found = describe(read_columns(out, TraceFormat.MOONCAKE))
        shown = (
            [(out.name, found)] if model is None or like is None else [(like.name, model), (out.name, found)]
        )
        stdout().print(description_table("as written", shown))
        missed = abs(found.reuse.token_share - wanted.reuse)
        if missed > synth.REUSE_TOLERANCE:
            asked = "asked for" if reuse is not None else "the default is" if like is None else "--like has"
            print(
                f"{asked} {wanted.reuse:.1%} of the prompt tokens to be reused: prompts are too short for "
                f"blocks of {found.block_tokens} tokens, too few, or begin with too many texts (--prefixes)"
            )
        print(f"trace: {out}")
