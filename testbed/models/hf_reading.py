"""The values of a `config.json`. Each is checked when it is read, and errors name its key."""

from collections.abc import Mapping, Sequence
from typing import Any

MOST = 10_000_000
"""No size of a model is larger. It would be a mistake, and a loop over that many layers would not end."""


class ConfigError(ValueError):
    """A configuration that gives no shape. The message begins with the key at fault."""


class Reader:
    """The keys of a configuration. Families name a size differently, so methods take all its names."""

    def __init__(self, keys: Mapping[str, Any]) -> None:
        self._keys = keys

    def keys_with_values(self) -> dict[str, Any]:
        """Return all keys that are not null. In these files null means the same as a missing key."""
        return {key: value for key, value in self._keys.items() if value is not None}

    def get(self, key: str) -> Any:
        """Return the unchecked value of `key`, None if there is none."""
        return self._keys.get(key)

    def named(self, names: Sequence[str], *, default: str | None = None) -> str:
        """Return the first of `names` that has a value. If none has: `default`, or else the first name."""
        fallback = names[0] if default is None else default
        return next((name for name in names if self._keys.get(name) is not None), fallback)

    def size(self, names: Sequence[str], *, default: int | None = None, least: int = 1) -> int:
        """Return the value of the first of `names` that has one, else `default`.

        The value must be a whole number of at least `least`. A list of equal numbers, one for each layer,
        counts as that number. Raises `ConfigError` for anything else, and if there is neither a value nor
        a default.
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
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ConfigError(f"{key}: {value!r} is not a whole number of at least {least}")
        if value > MOST:
            raise ConfigError(f"{key}: {value!r} is more than any model has")
        return value

    def count(self, names: Sequence[str]) -> int:
        """As `size`, but 0 is allowed, and is the default."""
        return self.size(names, default=0, least=0)

    def indices(self, key: str, layers: int) -> tuple[int, ...]:
        """Return the layers that `key` lists, none if it is missing.

        Raises `ConfigError` if the value is not a list of layers that exist.
        """
        value = self._keys.get(key)
        if value is None:
            return ()
        if not isinstance(value, list) or not all(type(item) is int for item in value):
            raise ConfigError(f"{key}: {value!r} is not a list of layers")
        wrong = [item for item in value if not 0 <= item < layers]
        if wrong:
            raise ConfigError(f"{key}: there is no layer {wrong[0]} in a model of {layers} layers")
        return tuple(value)


def _or_named(names: Sequence[str]) -> str:
    return f" (so are {', '.join(names)})" if names else ""
