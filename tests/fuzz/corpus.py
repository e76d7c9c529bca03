"""What the fuzzer begins with: small whole inputs, and damage that once was a traceback or a hang."""

import itertools
from pathlib import Path

SCENARIO = """\
extends: two-flows
fabric: sim
policies: [fair, "mfs(rho=0.5, recheck_ns=5000000)"]
topology: {servers: 4, nic_gbps: 100}
scheduler: {recheck_ms: 5.0}
"""

SERVED = """\
extends: quickstart
fabric: sim
policies: [fair]
gpu: gpu.yaml
workload: {path: trace.csv, requests: 2, arrivals: bursty, dispersion: 4.0, load: null, rate: 2.0}
simulation: {calibration: calibration.json}
"""

GPU = "name: g\npeak_flops: 1e14\nmemory_bytes_per_s: 1e12\nefficiency: 0.5\n"

PARAMETER = '{"value": 0.9, "p10": 0.8, "p90": 1.0, "samples": 5}'

CALIBRATION = (
    '{"link_mbps": 15.0, "members": 4, "faithful": true, "facts": {"kernel": "6.1"}, '
    f'"incast": {PARAMETER}, "parameters": {{"goodput": {PARAMETER}, "permit_us": {PARAMETER}}}}}\n'
)

AZURE = (
    "TIMESTAMP,ContextTokens,GeneratedTokens\n"
    "2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:50.9951690,396,109\n"
)
MOONCAKE = "".join(
    f'{{"timestamp": {at}, "input_length": 600, "output_length": 5, "hash_ids": [1, {at + 2}]}}\n'
    for at in (0, 3000)
)
SHAREGPT = (
    '[{"id": "a", "conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}]}]\n'
)
NETWORK = "from,to,gbps\nh1,s1,100\nh2,s1,100\nh3,s1,100\nh4,s1,100\n"

FILES = {
    "scenario.yaml": SCENARIO,
    "served.yaml": SERVED,
    "gpu.yaml": GPU,
    "calibration.json": CALIBRATION,
    "trace.csv": AZURE,
    "mooncake.jsonl": MOONCAKE,
    "sharegpt.json": SHAREGPT,
    "network.csv": NETWORK,
}

_SIMULATED = ("--fabric", "sim", "--jobs", "1")
_FLOWS = ("run", "two-flows", *_SIMULATED, "--set")

COMMANDS: dict[str, tuple[tuple[str, ...], ...]] = {
    "scenario.yaml": (
        ("scenarios", "scenario.yaml"),
        ("run", "scenario.yaml", *_SIMULATED, "--set", "workload.kind=flows"),
    ),
    "served.yaml": (
        ("scenarios", "served.yaml"),
        ("run", "served.yaml", *_SIMULATED, "--set", "workload.requests=2"),
    ),
    "gpu.yaml": (("run", "served.yaml", *_SIMULATED),),
    "calibration.json": ((*_FLOWS, "simulation.calibration=calibration.json"),),
    "trace.csv": (("workload", "describe", "trace.csv"), ("run", "served.yaml", *_SIMULATED)),
    "mooncake.jsonl": (("workload", "describe", "mooncake.jsonl"),),
    "sharegpt.json": (("workload", "describe", "sharegpt.json"),),
    "network.csv": (
        (
            *_FLOWS,
            "topology.kind=file",
            "--set",
            "topology.format=links",
            "--set",
            "topology.path=network.csv",
        ),
    ),
}
"""The commands that read a file, by the file. A damaged scenario must not begin an emulated run."""

TOKENS = (
    *("", "0", "-1", "1e300", "1e-300", "1e999", "9" * 5000, ".inf", ".nan", "NaN", "null", "true", "~"),
    *("!!bool maybe", "!!int ''", "!!timestamp x", "!!python/object:os.system x", "&a [*a]", "*b", "? x"),
    *("[" * 5000, "{" * 5000, "a." * 1000, "=1+1", "\x1b[31m", '"\\e"', "\x00", "\ufeff", "\u2028", "ÿ"),
    *("/dev/zero", "/dev/stdin", "/proc/self/mem", "..", "~", "1969-12-31 23:59:59", "9999-12-31 23:59:59"),
    *("0x7fffffffffffffff", "18446744073709551616", "-9223372036854775809", "1_000", "1:30", "0b1", "1e-7"),
)
"""Pieces that go in place of others."""


def write(directory: Path) -> None:
    """Write the whole files into `directory`."""
    for name, text in FILES.items():
        (directory / name).write_text(text, encoding="utf-8")


def bombs() -> list[tuple[str, bytes]]:
    """Return files that are damage as a whole, each with the name of the one that it replaces."""
    letters = "abcdefghi"
    aliases = f"a: &a [{', '.join('x' * 9)}]\n"
    for above, name in itertools.pairwise(letters):
        aliases += f"{name}: &{name} [{', '.join([f'*{above}'] * 9)}]\n"
    texts = (aliases, "[" * 100_000, "{" * 100_000, "a: " * 20_000, "- " * 20_000, "\x00" * 4096, "", "\n")
    found = [(name, text.encode()) for name in FILES for text in texts]
    large = [(name, b" " * (3 * 2**20)) for name in FILES]
    return [*found, *large, *((name, b"\xff\xfe\x80") for name in FILES)]
