"""What the options of a policy take: types, bounds, defaults, and a line of help."""

import dataclasses
import enum
import typing

import msgspec

_KINDS: dict[object, str] = {int: "a whole number", float: "a number", str: "a word"}


class OptionHelp(msgspec.Struct, frozen=True, kw_only=True):
    """One option. `kind` is in words, and `default` is written as in a spec.

    A value is at least `least`, above `above` and at most `most`, where these are not None.
    """

    name: str
    kind: str
    default: str
    help: str
    least: float | None = None
    above: float | None = None
    most: float | None = None

    @property
    def bounds(self) -> str:
        """The bounds in words: "2 to 6", "above 0"; empty without any."""
        if self.least is not None and self.most is not None:
            return f"{self.least:g} to {self.most:g}"
        told = [(self.least, "at least"), (self.above, "above"), (self.most, "at most")]
        return " and ".join(f"{word} {bound:g}" for bound, word in told if bound is not None)

    @property
    def line(self) -> str:
        """The option in one line: name, default, what it does, bounds."""
        said = ", ".join(filter(None, (self.help, self.bounds)))
        return f"{self.name}={self.default}  {said}".rstrip()


def options_of(options: type) -> list[OptionHelp]:
    """Return the fields of the dataclass `options`.

    Of the metadata of an annotation, texts are the help, and a `msgspec.Meta` has the bounds.
    """
    hints = typing.get_type_hints(options, include_extras=True)
    plain = typing.get_type_hints(options)
    found = []
    for one in dataclasses.fields(options):
        metadata = getattr(hints[one.name], "__metadata__", ())
        meta = next((part for part in metadata if isinstance(part, msgspec.Meta)), msgspec.Meta())
        found.append(
            OptionHelp(
                name=one.name,
                kind=kind_in_words(plain[one.name]),
                default=_written(one.default),
                help=" ".join(part for part in metadata if isinstance(part, str)),
                least=meta.ge,
                above=meta.gt,
                most=meta.le,
            )
        )
    return found


def kind_in_words(kind: object) -> str:
    """Return what an option of the type `kind` takes: "on or off", "a whole number", "port or own"."""
    if kind is bool:
        return "on or off"
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return " or ".join(str(member.value) for member in kind)
    parts = typing.get_args(kind)
    if parts:
        return " or ".join(map(kind_in_words, parts))
    return _KINDS[kind] if kind in _KINDS else str(kind)


def _written(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value.value) if isinstance(value, enum.Enum) else str(value)
