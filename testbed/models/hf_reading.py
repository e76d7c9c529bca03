"""The values of a `config.json`. Each is checked when it is read, and errors name its key."""

from collections.abc import Mapping, Sequence
from typing import Any

MOST = 10_000_000
"""No size of a model is larger. It would be a mistake, and a loop over that many layers would not end."""


class ConfigError(ValueError):
    """A configuration that gives no shape. The message begins with the key at fault."""


class Reader:
    """The keys of a configuration, and which of them were asked for.

    Families name a size differently, so methods take all its names. In these files null means the same as a
    missing key, unless `has` is asked.
    """

    def __init__(self, keys: Mapping[str, Any]) -> None:
        self._keys = keys
        self._asked: set[str] = set()
        self.notes: list[str] = []

    @property
    def asked(self) -> frozenset[str]:
        """All keys that were asked for, whether they have a value or not."""
        return frozenset(self._asked)

    def ask(self, *names: str) -> None:
        """Count keys as read that have no say in this model."""
        self._asked.update(names)

    def note(self, text: str) -> None:
        """Tell the user something about the numbers, once."""
        if text not in self.notes:
            self.notes.append(text)

    def keys_with_values(self) -> dict[str, Any]:
        """Return all keys that are not null."""
        return {key: value for key, value in self._keys.items() if value is not None}

    def has(self, key: str) -> bool:
        """Whether the file has the key, even if its value is null."""
        return key in self._keys

    def get(self, key: str) -> Any:
        """Return the unchecked value of `key`, None if there is none."""
        self._asked.add(key)
        return self._keys.get(key)

    def flag(self, key: str) -> bool | None:
        """Return the truth value of `key`, None if there is none. Raises `ConfigError` for anything else."""
        value = self.get(key)
        if value is not None and not isinstance(value, bool):
            raise ConfigError(f"{key}: {value!r} is not true or false")
        return value

    def word(self, key: str) -> str | None:
        """Return the text of `key`, None if there is none. Raises `ConfigError` for anything else."""
        value = self.get(key)
        if value is not None and not isinstance(value, str):
            raise ConfigError(f"{key}: {value!r} is not a text")
        return value

    def named(self, names: Sequence[str], *, default: str | None = None) -> str:
        """Return the first of `names` that has a value. If none has: `default`, or else the first name.

        Raises `ConfigError` if several have values that differ.
        """
        self._asked.update(names)
        given = [name for name in names if self._keys.get(name) is not None]
        for other in given[1:]:
            if self._keys[other] != self._keys[given[0]]:
                raise ConfigError(
                    f"{given[0]}: {self._keys[given[0]]!r}, but {other} is {self._keys[other]!r}"
                )
        return given[0] if given else names[0] if default is None else default

    def size(self, names: Sequence[str], *, default: int | None = None, least: int = 1) -> int:
        """Return the value of the first of `names` that has one, else `default`.

        The value must be a whole number of at least `least`. A list of equal numbers counts as that number.
        Raises `ConfigError` for anything else, and if there is neither a value nor a default.
        """
        key = self.named(names, default="")
        if not key:
            if default is None:
                raise ConfigError(f"{names[0]}: missing{_or_named(names[1:])}")
            return default
        value = self._keys[key]
        if isinstance(value, list) and value and all(item == value[0] for item in value):
            value = value[0]
        if isinstance(value, list):
            raise ConfigError(f"{key}: layers that differ in this are not modelled")
        return _checked(key, value, least)

    def sizes(self, names: Sequence[str], layers: int, *, default: int | None = None) -> tuple[int, ...]:
        """As `size`, for each of `layers` layers: a list gives each layer its own value.

        Raises `ConfigError` for a list of another length.
        """
        key = self.named(names, default="")
        value = self._keys.get(key)
        if not isinstance(value, list):
            return (self.size(names, default=default),) * layers
        if len(value) != layers:
            raise ConfigError(f"{key}: {len(value)} entries for {layers} layers")
        return tuple(_checked(key, item, 1) for item in value)

    def count(self, names: Sequence[str]) -> int:
        """As `size`, but 0 is allowed, and is the default."""
        return self.size(names, default=0, least=0)

    def indices(self, key: str, layers: int, *, first: int = 0) -> tuple[int, ...]:
        """Return the layers that `key` lists, counted from 0; none if it is missing.

        The file counts them from `first`. Raises `ConfigError` if the value is not a list of layers that
        exist.
        """
        value = self.get(key)
        if value is None:
            return ()
        return layer_list(key, value, layers, first=first)


def layer_list(key: str, value: Any, layers: int, *, first: int = 0) -> tuple[int, ...]:
    """Return the layers of the list `value`, counted from 0. Raises `ConfigError`, naming `key`."""
    if not isinstance(value, list) or not all(type(item) is int for item in value):
        raise ConfigError(f"{key}: {value!r} is not a list of layers")
    wrong = [item for item in value if not first <= item < layers + first]
    if wrong:
        raise ConfigError(f"{key}: there is no layer {wrong[0]} in a model of {layers} layers")
    return tuple(item - first for item in value)


def _checked(key: str, value: Any, least: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ConfigError(f"{key}: {value!r} is not a whole number of at least {least}")
    if value > MOST:
        raise ConfigError(f"{key}: {value!r} is more than any model has")
    return value


def _or_named(names: Sequence[str]) -> str:
    return f" (so are {', '.join(names)})" if names else ""
