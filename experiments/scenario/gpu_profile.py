"""The GPU of a scenario: a known one, or one from a profile, a YAML file with the fields of `GpuSpeed`."""

import json
import os
from pathlib import Path

from pydantic import Field, ValidationError

from experiments import yaml_file
from experiments.errors import UserError
from experiments.named_file import named_text
from experiments.nearest import nearest
from experiments.scenario.checked_files import CheckedFiles
from experiments.scenario.section import PydanticKind, Section
from testbed.models.gpus import GPUS, GpuSpeed

_MOST_BYTES = 64 * 2**10
_SUFFIXES = (".yaml", ".yml")


class GpuProfile(Section):
    """The keys of a profile: one for each field of `GpuSpeed`."""

    name: str = Field(min_length=1, description="name of this GPU in results")
    peak_flops: float = Field(ge=1e6, le=1e18, description="dense 16-bit peak, FLOP/s")
    memory_bytes_per_s: float = Field(ge=1e6, le=1e16, description="peak bandwidth of its memory, B/s")
    efficiency: float = Field(ge=1e-6, le=1, description="share of the peak that prefill reaches")
    memory_efficiency: float = Field(
        default=1.0, ge=1e-6, le=1, description="share of the bandwidth that reading weights and KV reaches"
    )
    launch_s: float = Field(
        default=0.0, ge=0, le=1, description="seconds that a step takes in addition to its work"
    )
    measured: str = Field(default="", description="where the shares come from; empty for an assumption")


def gpu_named(name: str) -> GpuSpeed:
    """Return the GPU of that name, or the one whose profile is the file `name`.

    Raises `UserError` for a profile that cannot be used.
    """
    return GPUS[name] if name in GPUS else GPU_FILES.content(name)


def as_gpu_path(name: str, directory: Path) -> str | None:
    """Return the absolute path that `name` means in a file of `directory`; None if it is not a path."""
    if not name.endswith(_SUFFIXES) and "/" not in name:
        return None
    return os.path.abspath(directory / os.path.expanduser(name))


def read_profile(path: Path) -> GpuSpeed:
    """Return the GPU of a profile.

    Raises `UserError` for a profile that cannot be used. The message names the file, the line and the key.
    """
    document = yaml_file.parse(named_text(path, most_bytes=_MOST_BYTES), str(path))
    if not isinstance(document.data, dict):
        raise UserError(f"{path}: not a GPU profile with the keys {', '.join(GpuProfile.model_fields)}")
    try:
        profile = GpuProfile.model_validate(document.data, strict=True)
    except ValidationError as error:
        found = [
            _problem(str(problem["loc"][0]), problem["msg"], problem["type"]) for problem in error.errors()
        ]
        where = [
            f"{path}, line {document.lines[key,]}" if (key,) in document.lines else str(path)
            for key, _ in found
        ]
        lines = [f"{place}: {words}" for place, (_, words) in zip(where, found, strict=True)]
        raise UserError("\n".join(lines)) from None
    return GpuSpeed(**profile.model_dump())


GPU_FILES = CheckedFiles(read_profile)


def profile_text(gpu: GpuSpeed, comments: str) -> str:
    """Return the profile of `gpu` as `read_profile` reads it, below the lines of `comments`."""
    lines = [f"# {line}".rstrip() for line in comments.splitlines()]
    for name in GpuProfile.model_fields:
        value = getattr(gpu, name)
        # A JSON string is also a YAML string.
        shown = json.dumps(value, ensure_ascii=False) if isinstance(value, str) else f"{value:.6g}"
        lines.append(f"{name}: {shown}")
    return "\n".join(lines) + "\n"


def _problem(key: str, message: str, kind: str) -> tuple[str, str]:
    """Return the key to blame, and what is wrong with it."""
    if kind == PydanticKind.MISSING:
        return key, f"{key!r} is missing"
    if kind == PydanticKind.EXTRA:
        guess = nearest(key, GpuProfile.model_fields)
        return key, f"unknown key {key!r}" + (f"; did you mean {guess!r}?" if guess else "")
    return key, f"{key}: {message[0].lower()}{message[1:]}"
