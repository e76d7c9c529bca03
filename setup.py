"""Builds the two compiled modules. Everything else about the package is in pyproject.toml."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nanobind
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent
NANOBIND = Path(nanobind.source_dir()).parent

FLAGS = (
    "-std=c++20",
    "-O2",
    # Fused multiply-adds round differently, and not every machine has them.
    "-ffp-contract=off",
    "-fvisibility=hidden",
    "-Wall",
    "-Wextra",
    # Nanobind's headers are not ours to warn about.
    *("-isystem", nanobind.include_dir()),
    *("-isystem", str(NANOBIND / "ext" / "robin_map" / "include")),
    *("-I", "."),
)
NANOBIND_FLAGS = (*FLAGS, "-DNB_COMPACT_ASSERTIONS", "-fno-strict-aliasing", "-ffunction-sections")


def compiled(name: str, folder: str) -> Extension:
    """The module `name`, from all C++ files in `folder`."""
    sources = sorted(str(path.relative_to(ROOT)) for path in (ROOT / folder).glob("*.cpp"))
    return Extension(name, sources, language="c++")


class Build(build_ext):
    """Compiles files side by side, nanobind once for all modules, and nothing again that is up to date."""

    def build_extensions(self) -> None:
        headers = [path for floor in ("controller", "testbed") for path in (ROOT / floor).rglob("*.hpp")]
        newest = max(path.stat().st_mtime for path in [*headers, Path(__file__)])
        own = {source for extension in self.extensions for source in extension.sources}
        Path(self.build_temp).mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
            shared = pool.submit(self._object, str(NANOBIND / "src" / "nb_combined.cpp"), NANOBIND_FLAGS, 0.0)
            made = {source: pool.submit(self._object, source, FLAGS, newest) for source in sorted(own)}
        for extension in self.extensions:
            objects = [shared.result(), *(made[source].result() for source in extension.sources)]
            self.compiler.link_shared_object(
                objects,
                self.get_ext_fullpath(extension.name),
                extra_postargs=["-Wl,--gc-sections"],
                target_lang="c++",
            )

    def _object(self, source: str, flags: Sequence[str], newer_than: float) -> str:
        """Compile `source`, if its object is older than it or than `newer_than`, and return the object."""
        target = Path(self.build_temp, Path(source).name if Path(source).is_absolute() else source)
        target = target.with_suffix(".o")
        if target.exists() and target.stat().st_mtime >= max(Path(source).stat().st_mtime, newer_than):
            return str(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        include = [part for path in self.include_dirs for part in ("-isystem", path)]
        # distutils keeps the compiler for C++ apart from that for C only in its newer versions.
        command = getattr(self.compiler, "compiler_so_cxx", self.compiler.compiler_so)
        self.spawn([*command, *include, *flags, "-fPIC", "-c", source, "-o", str(target)])
        return str(target)


setup(
    ext_modules=[
        compiled("controller._core", "controller/core"),
        compiled("testbed.simulation._core", "testbed/simulation/core"),
    ],
    cmdclass={"build_ext": Build},
)
