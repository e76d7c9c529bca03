"""Which of Ryu and os-ken speaks OpenFlow: the one that is installed, or the one that is asked for."""

import importlib.metadata
import os
import subprocess
import sys

import pytest

from controller import ofcompat


def pretend(monkeypatch: pytest.MonkeyPatch, *present: str) -> None:
    def version(name: str) -> str:
        if name in present:
            return "1.0"
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", version)


@pytest.mark.parametrize(
    ("present", "found"),
    [(("ryu", "os-ken"), ["ryu", "os-ken"]), (("os-ken",), ["os-ken"]), ((), [])],
)
def test_ryu_comes_first(monkeypatch: pytest.MonkeyPatch, present: tuple[str, ...], found: list[str]) -> None:
    pretend(monkeypatch, *present)
    assert ofcompat.installed() == found


def test_one_of_them_is_installed_here() -> None:
    assert ofcompat.installed() != []


def test_without_either_the_message_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch)
    monkeypatch.delenv(ofcompat.CHOICE_VARIABLE, raising=False)
    with pytest.raises(ImportError, match="neither ryu nor os-ken is installed: `mfs doctor` says how"):
        ofcompat.load()


def load_in_a_process_of_its_own(choice: str | None) -> subprocess.CompletedProcess[str]:
    """Loading Ryu replaces half the standard library, so it happens in another process."""
    environment = {k: v for k, v in os.environ.items() if k != ofcompat.CHOICE_VARIABLE}
    if choice is not None:
        environment[ofcompat.CHOICE_VARIABLE] = choice
    code = "from controller import ofcompat; of = ofcompat.load(); print(of.name, of.ofproto.OFP_VERSION)"
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )


def test_the_first_one_installed_is_loaded_and_speaks_openflow_1_3() -> None:
    assert load_in_a_process_of_its_own(None).stdout.split() == [ofcompat.installed()[0], "4"]


@pytest.mark.parametrize("choice", ofcompat.installed())
def test_the_environment_can_insist_on_one(choice: str) -> None:
    assert load_in_a_process_of_its_own(choice).stdout.split() == [choice, "4"]


def test_insisting_on_one_that_is_absent_is_an_import_error() -> None:
    absent = sorted({"ryu", "os-ken"} - set(ofcompat.installed()))
    if not absent:
        pytest.skip("both are installed")
    done = load_in_a_process_of_its_own(absent[0])
    assert done.returncode != 0
    assert f"MFS_OPENFLOW asks for '{absent[0]}'; installed: " in done.stderr
