"""Builds the compiled modules. Everything else about the package is in pyproject.toml.

`python setup.py build_ext --inplace` compiles again what has changed, and nothing else.
"""

import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nanobind
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent
sys.path.insert(0, str(ROOT))

from controller.compiled import digest_of  # noqa: E402 - a build does not have this folder on its path

MODULES = {
    "controller._core": ("controller/core",),
    "testbed.simulation._core": ("testbed/simulation/core", "controller/core"),
    "experiments.traces._core": ("experiments/traces/core",),
}
"""The folder of each module, and those whose C++ it uses. A folder without C++ files makes no module.

Of the other folders, a module gets all files but `module.cpp` and `*_binding.cpp`.
"""

NANOBIND = Path(nanobind.source_dir()).parent
FLAGS = (
    "-std=c++20",
    "-O2",
    # Python's own flags ask for debugging information, which takes a quarter of the time to compile.
    "-g0",
    # Fused multiply-adds round differently, and not every machine has them.
    "-ffp-contract=off",
    "-fvisibility=hidden",
    "-ffunction-sections",
    "-fPIC",
    "-Wall",
    "-Wextra",
    *("-I", "."),
    # System headers: their warnings are not for us.
    *("-isystem", nanobind.include_dir()),
    *("-isystem", str(NANOBIND / "ext" / "robin_map" / "include")),
)
NANOBIND_FLAGS = ("-DNB_COMPACT_ASSERTIONS", "-fno-strict-aliasing")


def extensions() -> list[Extension]:
    return [
        Extension(name, sources, language="c++")
        for name, (own, *used) in MODULES.items()
        if (sources := [*files(own), *(file for folder in used for file in files(folder) if not binds(file))])
    ]


def files(folder: str) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in sorted((ROOT / folder).glob("*.cpp"))]


def binds(file: str) -> bool:
    return file.endswith(("/module.cpp", "_binding.cpp"))


class Build(build_ext):
    """Compiles files side by side, each once for all modules, and none that is up to date."""

    def build_extensions(self) -> None:
        flags = {
            f"{folders[0]}/module.cpp": (f'-DSOURCES="{digest_of(ROOT, folders)}"',)
            for folders in MODULES.values()
        }
        nanobind_cpp = str(NANOBIND / "src" / "nb_combined.cpp")
        flags[nanobind_cpp] = NANOBIND_FLAGS
        wanted = dict.fromkeys(
            [nanobind_cpp, *(file for module in self.extensions for file in module.sources)]
        )
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            made = {file: pool.submit(self._compile, file, flags.get(file, ())) for file in wanted}
        for module in self.extensions:
            self.compiler.link_shared_object(
                [made[file].result() for file in (nanobind_cpp, *module.sources)],
                self.get_ext_fullpath(module.name),
                extra_postargs=["-Wl,--gc-sections"],
                target_lang="c++",
            )

    def _compile(self, file: str, flags: Sequence[str]) -> str:
        """Compile `file`, unless neither the command nor any input has changed. Return the object."""
        target = Path(self.build_temp, *Path(file).parts[-4:]).with_suffix(".o")
        target.parent.mkdir(parents=True, exist_ok=True)
        python = [flag for path in self.compiler.include_dirs for flag in ("-isystem", path)]
        command = [*self.compiler.compiler_so, *python, *FLAGS, *flags, "-MMD", "-c", file, "-o", str(target)]
        done = target.with_suffix(".command")
        if not (done.exists() and done.read_text() == repr(command) and _is_newer(target)):
            done.unlink(missing_ok=True)
            self.spawn(command)
            done.write_text(repr(command))
        return str(target)


def _is_newer(target: Path) -> bool:
    """Whether the object `target` is newer than all files that the compiler says it was made from."""
    _, _, names = target.with_suffix(".d").read_text().partition(":")
    made_from = [Path(name) for name in names.replace("\\\n", " ").split()]
    return all(path.exists() and path.stat().st_mtime < target.stat().st_mtime for path in made_from)


setup(ext_modules=extensions(), cmdclass={"build_ext": Build})
