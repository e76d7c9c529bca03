"""C++ does not check indices, and a wrong one corrupts memory. So the links run with all checks here."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[5]
CORE = ROOT / "testbed" / "simulation" / "core"
CHECKS = (
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=all",
    "-D_GLIBCXX_ASSERTIONS",
)


def test_no_index_leaves_its_array_on_any_level(tmp_path: Path) -> None:
    program = tmp_path / "bounds"
    names = ("at_hosts", "bundles", "groups", "links", "links_inspection", "sharing", "weighted")
    sources = [CORE / f"{name}.cpp" for name in names]
    subprocess.run(
        [
            *("g++", "-std=c++20", "-O1", *CHECKS, "-I", str(ROOT), "-o", str(program)),
            *map(str, [Path(__file__).with_name("bounds.cpp"), *sources]),
        ],
        check=True,
    )
    ran = subprocess.run([program], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout.strip()) == (0, "done"), ran.stderr[-2000:]
