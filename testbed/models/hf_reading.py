"""The values of a `config.json`, each checked when it is asked for and blamed by its key."""

from collections.abc import Mapping, Sequence
from typing import Any

MOST = 10_000_000
"""No size of a model is larger: a slip, and a number of layers to go through one by one."""


class ConfigError(ValueError):
    """A configuration from which no shape follows. The message begins with the key to blame."""


class Reader:
    """The keys of a configuration. Families name a size differently: each is asked for by all its names."""

    def __init__(self, keys: Mapping[str, Any]) -> None:
        self._keys = keys

    def keys_with_values(self) -> dict[str, Any]:
        """All keys but those that are null, which in these files is as good as not there."""
        return {key: value for key, value in self._keys.items() if value is not None}

    def get(self, key: str) -> Any:
        """The value as it is, None where there is none."""
        return self._keys.get(key)

    def named(self, names: Sequence[str], *, default: str | None = None) -> str:
        """The first of `names` that has a value; without one `default`, or the first name."""
        fallback = names[0] if default is None else default
        return next((name for name in names if self._keys.get(name) is not None), fallback)

    def size(self, names: Sequence[str], *, default: int | None = None, least: int = 1) -> int:
        """The first of `names` that has a value, a whole number from `least` up; else `default`.

        A list of numbers that are all alike, one for each layer, counts as that number. Raises
        `ConfigError` for anything else, and without a value and a default.
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
            raise ConfigError(f"{key}: {value!r} is no whole number from {least} up")
        if value > MOST:
            raise ConfigError(f"{key}: {value!r} is more than any model has")
        return value

    def count(self, names: Sequence[str]) -> int:
        """As `size`, but 0 is allowed and the default."""
        return self.size(names, default=0, least=0)

    def indices(self, key: str, layers: int) -> tuple[int, ...]:
        """A list of layers, empty where there is none. Raises `ConfigError` for one that does not exist."""
        value = self._keys.get(key)
        if value is None:
            return ()
        if not isinstance(value, list) or not all(type(item) is int for item in value):
            raise ConfigError(f"{key}: {value!r} is no list of layers")
        wrong = [item for item in value if not 0 <= item < layers]
        if wrong:
            raise ConfigError(f"{key}: there is no layer {wrong[0]} among {layers}")
        return tuple(value)


def _or_named(names: Sequence[str]) -> str:
    return f" (nor is it there as {', '.join(names)})" if names else ""
