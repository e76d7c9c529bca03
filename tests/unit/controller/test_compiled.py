"""Whether compiled modules are those of the sources: what a digest notices, and what it leaves alone."""

from pathlib import Path

import pytest

from controller import _core as controller
from controller.compiled import digest_of
from experiments.traces import _core as traces
from testbed.advice import set_up_again
from testbed.emulation import requirements as emulation
from testbed.fabric import FabricUnavailable
from testbed.fabrics import FABRICS
from testbed.simulation import _core as simulation
from testbed.simulation import fabric_sim

ROOT = Path(__file__).parents[3]


@pytest.fixture
def core(tmp_path: Path) -> Path:
    folder = tmp_path / "room" / "core"
    folder.mkdir(parents=True)
    (folder / "a.cpp").write_text("int a;")
    (folder / "a.hpp").write_text("extern int a;")
    return folder


def test_a_change_of_a_file_its_name_or_its_folder_changes_the_digest(core: Path) -> None:
    root = core.parents[1]
    seen = {digest_of(root, ["room/core"])}
    (core / "a.hpp").write_text("extern long a;")
    seen.add(digest_of(root, ["room/core"]))
    (core / "a.cpp").rename(core / "b.cpp")
    seen.add(digest_of(root, ["room/core"]))
    core.rename(core.with_name("other"))
    seen.add(digest_of(root, ["room/other"]))
    assert len(seen) == 4


def test_other_files_and_folders_that_are_not_there_leave_it_alone(core: Path) -> None:
    root = core.parents[1]
    before = digest_of(root, ["room/core"])
    (core / "notes.txt").write_text("not compiled")
    assert digest_of(root, ["room/core", "room/none"]) == before


def test_the_compiled_modules_are_those_of_the_sources() -> None:
    """If this fails, `make setup` compiles them again."""
    assert digest_of(ROOT, ["controller/core"]) == controller.SOURCES
    assert digest_of(ROOT, ["testbed/simulation/core", "controller/core"]) == simulation.SOURCES
    assert digest_of(ROOT, ["experiments/traces/core"]) == traces.SOURCES


def test_no_run_is_simulated_by_a_core_that_was_built_from_other_sources(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fabric_sim, "SOURCES", "0" * 64)
    with pytest.raises(FabricUnavailable) as raised:
        FABRICS["sim"]().run(None, lambda progress: None)  # type: ignore[arg-type]
    assert [(need.name, need.fix) for need in raised.value.missing] == [("compiled core", set_up_again())]


def test_no_run_is_emulated_under_a_scheduler_that_was_built_from_other_sources(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(emulation, "SOURCES", "0" * 64)
    unmet = [need for need in emulation.requirements.__wrapped__() if not need.ok]
    assert ("compiled core", set_up_again()) in [(need.name, need.fix) for need in unmet]
