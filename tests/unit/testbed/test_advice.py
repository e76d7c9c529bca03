"""Advice on what is missing, in a checkout and where pip installed the package."""

import sys
from pathlib import Path

import pytest

from testbed.advice import install, set_up_again

CHECKOUT = Path(__file__).parents[3]


def test_in_a_checkout_make_sets_up_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(CHECKOUT)
    assert set_up_again() == install("torch") == "make setup"

    monkeypatch.chdir(tmp_path)
    assert set_up_again() == install("torch") == f"make -C {CHECKOUT} setup"


def test_elsewhere_pip_installs_the_version_that_the_testbed_asks_for(tmp_path: Path) -> None:
    assert install("torch", root=tmp_path) == f"{sys.executable} -m pip install torch==2.13.0"
    assert install("os-ken", "os-ken>=4", root=tmp_path) == f"{sys.executable} -m pip install 'os-ken>=4'"
    assert install("nothing-of-ours", root=tmp_path) == f"{sys.executable} -m pip install nothing-of-ours"
    assert "again" in set_up_again(tmp_path)
