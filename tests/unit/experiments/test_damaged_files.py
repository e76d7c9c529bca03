"""A short run of the fuzzer, in this process: the commands that only read."""

import random
import sys
from pathlib import Path

import pytest
from toy_fabric import Mfs

sys.path.insert(0, str(Path(__file__).parents[2] / "fuzz"))

import corpus
from mutate import mutated

READ_ONLY = {"scenario.yaml": ("scenarios", "scenario.yaml"), "served.yaml": ("scenarios", "served.yaml")} | {
    name: ("workload", "describe", name) for name in ("trace.csv", "mooncake.jsonl", "sharegpt.json")
}


def check(mfs: Mfs, name: str, raw: bytes) -> None:
    """An exception would go through `mfs`; a hang is for `make fuzz` to find."""
    corpus.write(Path())
    Path(name).write_bytes(raw)
    assert mfs(*READ_ONLY[name]) in (0, 2), raw
    assert "Traceback" not in mfs.err
    assert "\x1b" not in mfs.out + mfs.err
    assert mfs.err == "" or name in mfs.err, raw


def test_the_whole_files_are_read(mfs: Mfs) -> None:
    for name, text in corpus.FILES.items():
        if name in READ_ONLY:
            check(mfs, name, text.encode())
            assert mfs.err == ""


def test_files_that_are_damage_as_a_whole_are_refused_by_name(mfs: Mfs) -> None:
    for name, raw in corpus.bombs():
        if name in ("scenario.yaml", "trace.csv"):
            check(mfs, name, raw)


@pytest.mark.parametrize("seed", range(4))
def test_damaged_files_are_read_or_refused_by_name(mfs: Mfs, seed: int) -> None:
    draw = random.Random(seed)
    for _ in range(15):
        name = draw.choice(list(READ_ONLY))
        check(mfs, name, mutated(corpus.FILES[name], draw))


def test_the_same_seed_makes_the_same_damage() -> None:
    one, other = ([mutated(corpus.SCENARIO, random.Random(seed)) for seed in range(50)] for _ in range(2))
    assert one == other
    assert len(set(one)) > 40
