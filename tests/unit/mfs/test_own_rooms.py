"""`import mfs` beside folders of the user that have the names of our packages."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mfs._own_rooms import ROOMS, refuse_others

ROOT = Path(__file__).parents[3]
TRY = f"import sys; sys.path.append({str(ROOT)!r}); import mfs; print(mfs.run.__name__)"


def imported(folder: Path) -> subprocess.CompletedProcess[str]:
    """What a script in `folder` gets, where our packages come after those of the folder."""
    (folder / "own.py").write_text(TRY)
    # Tests that ran `mfs` in this process have left the variable that it sets for its own children.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    command = [sys.executable, folder / "own.py"]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=env)


@pytest.mark.parametrize("hidden", ["workers.py", "experiments/__init__.py"])
def test_a_package_of_the_user_that_hides_ours_is_named(tmp_path: Path, hidden: str) -> None:
    file = tmp_path / hidden
    file.parent.mkdir(exist_ok=True)
    file.touch()

    done = imported(tmp_path)

    place = file.parent if file.name == "__init__.py" else file
    room = hidden.partition("/")[0].removesuffix(".py")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        f"ImportError: {place} hides the package '{room}' that mfs needs from {ROOT}: rename it, or start"
        " Python in another folder"
    )


def test_other_folders_of_the_user_do_no_harm(tmp_path: Path) -> None:
    for name in ("data", "mine"):
        (tmp_path / name).mkdir()

    assert imported(tmp_path).stdout == "run\n"


def test_our_own_packages_are_accepted_and_others_are_not(tmp_path: Path) -> None:
    refuse_others()
    with pytest.raises(ImportError, match=f"hides the package '{ROOMS[0]}'"):
        refuse_others(tmp_path)
