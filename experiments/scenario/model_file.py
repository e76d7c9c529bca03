"""The model of a scenario: a known one, or one from a Hugging Face `config.json`."""

import json
import os
from pathlib import Path
from typing import Any

from experiments.errors import UserError
from experiments.json_text import NamedTwice, named_once
from experiments.named_file import named_text
from experiments.nearest import nearest
from experiments.scenario.checked_files import CheckedFiles
from testbed.models.hf_config import ConfigError, shape_from_config
from testbed.models.known_models import MODELS
from testbed.models.shape import ModelShape

_CONFIG = "config.json"
_MOST_BYTES = 8 * 2**20
_QUANTIZATION = "hf_quant_config.json"


def model_named(name: str) -> ModelShape:
    """Return the model of that name, or the one that the file or directory `name` describes.

    Raises `UserError` for a file or directory that cannot be used.
    """
    return MODELS[name] if name in MODELS else MODEL_FILES.content(name)


def model_from_option(name: str) -> ModelShape:
    """Return the model that an option names: a known one, or one from a file. Raises `UserError`."""
    path = as_model_path(name, Path.cwd())
    if path is None and name not in MODELS:
        guess = nearest(name, MODELS)
        hint = f"; did you mean {guess!r}?" if guess else ""
        raise UserError(
            f"{name!r} is not a known model{hint} (known: {', '.join(sorted(MODELS))}; or a config.json)"
        )
    return model_named(path or name)


def read_model(path: Path) -> ModelShape:
    """Return the model of a `config.json` or of a directory with one, named after the directory or file.

    Raises `UserError`, naming the file and the key, if there is no such file or it describes no model.
    """
    file = config_file(path)
    if path.is_dir() and not file.exists():
        raise UserError(f"{path}: there is no {_CONFIG} in it")
    config = _json(file)
    if not isinstance(config, dict):
        raise UserError(f"{file}: not a model: a mapping of keys to values is needed")
    beside = quantization_file(file)
    if beside is not None:
        config = config | {"hf_quant_config.json": _quantization(beside)}
    try:
        return shape_from_config(config, _name_of(file))
    except ConfigError as error:
        raise UserError(f"{file}: {error}") from None


def config_file(path: Path) -> Path:
    """Return the file that describes the model at `path`, which may be a directory."""
    return path / _CONFIG if path.is_dir() else path


def quantization_file(config: Path) -> Path | None:
    """Return the `hf_quant_config.json` beside a `config.json`, which says how the model was quantised.

    Beside `X_config.json`, this is `X_hf_quant_config.json`. None if there is none.
    """
    own = config.name.removesuffix(_CONFIG) if config.name.endswith(_CONFIG) else ""
    file = config.with_name(own + _QUANTIZATION)
    return file if file.is_file() else None


def model_files(path: Path) -> list[Path]:
    """Return the files that the model at `path` is read from."""
    config = config_file(path)
    beside = quantization_file(config)
    return [config] if beside is None else [config, beside]


def as_model_path(name: str, directory: Path) -> str | None:
    """Return the absolute path that `name` means in a file of `directory`; None if it is not a path."""
    path = directory / os.path.expanduser(name)
    named = name.endswith(".json") or "/" in name
    if named or (name not in MODELS and (path / _CONFIG).is_file()):
        return os.path.abspath(path)
    return None


MODEL_FILES = CheckedFiles(read_model)


def _json(file: Path) -> Any:
    text = named_text(file, most_bytes=_MOST_BYTES, encoding="utf-8-sig")
    try:
        return json.loads(text, object_pairs_hook=named_once)
    except NamedTwice as error:
        raise UserError(f"{file}: {error}") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{file}, line {error.lineno}: not JSON: {error.msg}") from None
    except RecursionError:
        raise UserError(f"{file}: not JSON that can be read: nested too deeply") from None
    except ValueError as error:  # a number of thousands of digits
        raise UserError(f"{file}: not JSON that can be read: {error}") from None


def _quantization(file: Path) -> dict[str, Any]:
    """The part of an `hf_quant_config.json` that says how weights and the KV cache are quantised."""
    content = _json(file)
    inner = content.get("quantization") if isinstance(content, dict) else None
    if not isinstance(inner, dict):
        raise UserError(f"{file}: a mapping under the key quantization is needed")
    return inner


def _name_of(file: Path) -> str:
    return file.resolve().parent.name if file.name == _CONFIG else file.stem
