"""`mfs cluster doctor` as text: a line per server, a line per pair, notes, and what is wrong."""

from testbed.cluster.examination import Examined


def examined_text(examined: Examined) -> str:
    """What was found, for a terminal."""
    lines = []
    for host, here in examined.here.items():
        clock, machine = examined.clocks[host], here.machine
        lines.append(
            f"{host}: torch {machine.torch}, Python {machine.python}, Linux {machine.kernel}, {machine.cores}"
            f" cores, {machine.gpus} GPUs; clock {clock.ahead_ns / 1e3:+.0f} us ahead (+-"
            f"{clock.error_ns / 1e3:.0f} us); {here.load.idle:.0%} idle"
        )
    for (a, b), seen in examined.pairs.items():
        bps = seen.bytes * 8 / seen.seconds if seen.seconds > 0 else 0.0
        nominal = examined.nominal_bps[a, b]
        share = "" if nominal is None else f", {bps / nominal:.0%} of what the scenario says"
        kept = sum(sent == got for sent, got in seen.dscps.items())
        marks = f"; {kept} of {len(seen.dscps)} marks kept" if seen.dscps else ""
        lines.append(f"{a} -> {b}: {bps / 1e6:.1f} Mb/s on one connection{share}{marks}")
    lines += [f"note: {note}" for note in examined.notes]
    lines += [f"wrong: {fault}" for fault in examined.wrong]
    if not examined.wrong:
        lines.append("nothing is wrong")
    return "\n".join(lines)
