"""The floor plan: imports point down, go in no circle, and no module is longer than a reader can hold."""

import ast
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FLOORS = ("controller", "workers", "testbed", "experiments", "mfs")
"""From the lowest up: a floor imports from itself and from those before it (docs/architecture.md)."""

MOST_LINES = 400
LONGER: dict[str, str] = {}
"""Modules that may be longer, and why."""


class House:
    """The modules under `root` by their dotted names, and what each imports of the others."""

    def __init__(self, root: Path) -> None:
        self.files = {_dotted(path.relative_to(root)): path for path in _modules(root)}
        self.imports = {name: self._imported(name) for name in self.files}

    def _imported(self, name: str) -> dict[str, int]:
        """Each module that `name` imports, anywhere in its code, with the line of the first such import."""
        found: dict[str, int] = {}
        path = self.files[name]
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                wanted = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                base = self._base(name, node)
                wanted = [f"{base}.{alias.name}" for alias in node.names]
            else:
                continue
            for one in wanted:
                for module in self._run_by(name, one):
                    found[module] = min(node.lineno, found.get(module, node.lineno))
        return found

    def _base(self, name: str, node: ast.ImportFrom) -> str:
        """The package or module that a `from` statement names. One dot is the package of the importer."""
        if not node.level:
            return node.module or ""
        package = name.split(".") if self.files[name].name == "__init__.py" else name.split(".")[:-1]
        return ".".join([*package[: len(package) - node.level + 1], *filter(None, [node.module])])

    def _run_by(self, name: str, wanted: str) -> Iterator[str]:
        """The modules that run when `name` imports `wanted`: it, or the module that has it as an attribute,
        and the packages around it that `name` is not in."""
        if wanted not in self.files:
            wanted = wanted.rpartition(".")[0]
        if wanted in self.files:
            yield wanted
        while wanted := wanted.rpartition(".")[0]:
            if wanted in self.files and not f"{name}.".startswith(f"{wanted}."):
                yield wanted

    def upward(self, floors: tuple[str, ...] = FLOORS) -> list[str]:
        """The imports that point to a higher floor, as places in words."""
        height = {floor: i for i, floor in enumerate(floors)}
        return [
            f"{name}, line {line}: imports {module}"
            for name, imported in self.imports.items()
            for module, line in imported.items()
            if height[_floor(module)] > height[_floor(name)]
        ]

    def circles(self) -> list[list[str]]:
        return circles({name: list(imported) for name, imported in self.imports.items()})

    def rooms(self) -> dict[str, list[str]]:
        """Each folder, and the folders that its modules import from, without those around or inside it."""
        found: dict[str, dict[str, None]] = {}
        for name, imported in self.imports.items():
            room = self._room(name)
            for other in map(self._room, imported):
                found.setdefault(other, {})
                if not f"{other}.".startswith(f"{room}.") and not f"{room}.".startswith(f"{other}."):
                    found.setdefault(room, {})[other] = None
        return {room: list(others) for room, others in found.items()}

    def _room(self, name: str) -> str:
        return name if self.files[name].name == "__init__.py" else name.rpartition(".")[0]

    def long(self, most: int = MOST_LINES) -> dict[str, int]:
        """The modules with more than `most` lines, and how many they have."""
        lines = {name: len(path.read_text().splitlines()) for name, path in self.files.items()}
        return {name: count for name, count in lines.items() if count > most}


def circles(graph: Mapping[str, list[str]]) -> list[list[str]]:
    """The groups of nodes that reach each other, each sorted; a node that names itself is one too.

    A node is in a circle with those that it reaches and that reach it.
    """
    reached = {node: _reached(graph, node) for node in graph}
    groups: dict[tuple[str, ...], None] = {}
    for node in sorted(graph):
        if node in reached[node]:
            groups[tuple(sorted(other for other in reached[node] if node in reached[other]))] = None
    return [list(group) for group in groups]


def _reached(graph: Mapping[str, list[str]], start: str) -> set[str]:
    found: set[str] = set()
    ahead = list(graph[start])
    while ahead:
        node = ahead.pop()
        if node not in found:
            found.add(node)
            ahead += graph[node]
    return found


def _modules(root: Path) -> Iterator[Path]:
    for floor in FLOORS:
        yield from sorted((root / floor).rglob("*.py"))


def _dotted(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _floor(module: str) -> str:
    return module.split(".")[0]


@pytest.fixture(scope="module")
def house() -> House:
    return House(ROOT)


def test_every_import_between_floors_points_down(house: House) -> None:
    """All floors have modules and use lower ones, so the finder saw them."""
    assert house.upward() == []
    uses: dict[str, set[str]] = defaultdict(set)
    for name, imported in house.imports.items():
        uses[_floor(name)].update(map(_floor, imported))
    assert uses["controller"] == {"controller"}
    assert all("controller" in uses[floor] for floor in FLOORS if floor != "mfs")
    assert uses["mfs"] == {"mfs", "experiments", "testbed"}


def test_no_module_imports_itself_by_way_of_others(house: House) -> None:
    assert house.circles() == []


def test_no_room_imports_from_itself_by_way_of_others(house: House) -> None:
    assert "testbed.serving.plans" in house.rooms()
    assert circles(house.rooms()) == []


def test_no_module_is_too_long_but_those_that_have_a_reason(house: House) -> None:
    """An exception that is short enough again has to leave the list."""
    assert sorted(house.long()) == sorted(LONGER)


def test_no_file_of_c_plus_plus_is_too_long() -> None:
    files = [path for floor in FLOORS for path in (ROOT / floor).rglob("*.[ch]pp")]
    assert ROOT / "testbed/simulation/core/links.hpp" in files
    assert [path for path in files if len(path.read_text().splitlines()) > MOST_LINES] == []


# --- the finder itself ------------------------------------------------------------------------------


def built(root: Path, modules: Mapping[str, str]) -> House:
    """A house of `modules`: the text of each file, by its path without the suffix."""
    for name, text in modules.items():
        path = root / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return House(root)


@pytest.mark.parametrize(
    "statement",
    [
        "import testbed.job",
        "import testbed.job as somewhere",
        "from testbed import job",
        "from testbed.job import Job",
        "def late():\n    from testbed.job import Job\n    return Job",
        "if TYPE_CHECKING:\n    from testbed.job import Job",
    ],
)
def test_an_import_that_points_up_is_found_however_it_is_written(tmp_path: Path, statement: str) -> None:
    made = built(
        tmp_path, {"workers/rank": statement, "testbed/job": "import controller.flow", "controller/flow": ""}
    )
    line = 1 + statement[: statement.index("testbed")].count("\n")
    assert made.upward() == [f"workers.rank, line {line}: imports testbed.job"]


def test_imports_down_within_a_floor_and_of_other_packages_are_allowed(tmp_path: Path) -> None:
    made = built(
        tmp_path,
        {
            "experiments/run": "import json\nimport testbed.job\nfrom . import other\n",
            "experiments/other": "from numpy import array\n",
            "testbed/job": "from controller.flow import Flow\n",
            "controller/flow": "",
        },
    )
    assert made.upward() == []
    assert made.imports["experiments.run"] == {"testbed.job": 2, "experiments.other": 3}


def test_a_circle_is_found_even_over_a_package_and_with_an_import_in_a_function(tmp_path: Path) -> None:
    """`flow` imports the package `parts`, that `bands`, and this `flow`, in a function. `view` only leads
    into the circle."""
    made = built(
        tmp_path,
        {
            "controller/flow": "from controller.parts import Band\n",
            "controller/parts/__init__": "from .bands import Band\n",
            "controller/parts/bands": "def of():\n    from ..flow import Flow\n",
            "controller/view": "import controller.flow\n",
        },
    )
    assert made.circles() == [["controller.flow", "controller.parts", "controller.parts.bands"]]


def test_a_module_imports_the_packages_around_what_it_names_too(tmp_path: Path) -> None:
    """`flow` names only `bands`, but Python runs the package's own file before, and that imports `flow`.
    For `other`, which is in the package, that file runs already."""
    made = built(
        tmp_path,
        {
            "controller/flow": "import controller.parts.bands\n",
            "controller/parts/__init__": "from controller.flow import Flow\nfrom . import other\n",
            "controller/parts/bands": "",
            "controller/parts/other": "from . import bands\n",
        },
    )
    assert made.circles() == [["controller.flow", "controller.parts"]]


def test_a_circle_of_rooms_is_found_though_its_modules_are_in_none(tmp_path: Path) -> None:
    """What a room shares with those inside it is no circle."""
    made = built(
        tmp_path,
        {
            "testbed/serving/system": "from testbed.serving.plans import build\n",
            "testbed/serving/plans/build": "from testbed.serving.cache import size\n",
            "testbed/serving/plans/steps": "import testbed.serving.units\n",
            "testbed/serving/cache/size": "",
            "testbed/serving/cache/use": "from testbed.serving.plans import steps\n",
            "testbed/serving/units": "",
        },
    )
    assert made.circles() == []
    assert circles(made.rooms()) == [["testbed.serving.cache", "testbed.serving.plans"]]


def test_two_circles_are_told_apart_and_a_chain_is_none() -> None:
    graph = {"a": ["b"], "b": ["a", "c"], "c": ["d"], "d": ["e"], "e": ["c"], "f": ["a"], "g": ["g"]}
    assert circles(graph) == [["a", "b"], ["c", "d", "e"], ["g"]]
    assert circles({"a": ["b", "c"], "b": ["c"], "c": []}) == []


def test_a_module_is_long_from_the_line_after_the_last_allowed(tmp_path: Path) -> None:
    made = built(tmp_path, {"workers/fits": "x = 1\n" * 400, "workers/long": "x = 1\n" * 401})
    assert made.long() == {"workers.long": 401}
