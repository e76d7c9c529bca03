"""The project's pages: their links, their headings, and the `mfs` commands and code names they show."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROOMS = ("docs", "experiments/paper")
PAGES = sorted([*ROOT.glob("*.md"), *(page for room in ROOMS for page in (ROOT / room).rglob("*.md"))])

_FENCE = re.compile(r"^( *)```.*?^\1```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(<?([^)\s>]+)>?\)")
_HEADING = re.compile(r"^#+ +(.*?)\s*#*$", re.MULTILINE)
_SPAN = re.compile(r"`([^`]+)`")
_INDENTED = re.compile(r"^ {4}(\S[^\n]*)", re.MULTILINE)
_MAKES_A_TABLE = re.compile(r"<!-- (?:remake|by hand): (.*?)-->", re.DOTALL)
_COMMAND = re.compile(r"(?:\$ )?(?:\.venv/bin/)?mfs (?=[a-z-])(.+)")


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def links(text: str) -> list[str]:
    """Targets of the links outside code."""
    return _LINK.findall(_SPAN.sub("", _FENCE.sub("", text)))


def anchors(text: str) -> set[str]:
    """What `#...` may follow a link to a page with this text: GitHub's rule for headings."""
    found: set[str] = set()
    for heading in _HEADING.findall(_FENCE.sub("", text)):
        words = re.sub(r"[^\w\- ]", "", re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)).lower()
        anchor, count = words.replace(" ", "-"), 0
        while (numbered := f"{anchor}-{count}" if count else anchor) in found:
            count += 1
        found.add(numbered)
    return found


def spans(text: str) -> list[str]:
    """Inline code, each on one line."""
    return [re.sub(r"\s+", " ", span) for span in _SPAN.findall(_FENCE.sub("", text))]


def commands(text: str) -> Iterator[list[str]]:
    """The words after `mfs` of every command: in code blocks, inline, and above a table that one makes."""
    joined = re.sub(r"\\\n\s*", "", text)
    plain = _FENCE.sub("", joined)
    fenced = [line for block in _FENCE.finditer(joined) for line in block[0].splitlines()]
    tables = [" ".join(comment.split()) for comment in _MAKES_A_TABLE.findall(plain)]
    for line in (*fenced, *_INDENTED.findall(plain), *tables, *spans(joined)):
        shown = _COMMAND.fullmatch(line.strip())
        if shown is not None:
            yield _words(shown[1])


_END = re.compile(r"""\s{2,}|, (?=(?:[^"]*"[^"]*")*[^"]*$)""")
"""Where an explanation begins after a command: two spaces, or a comma outside of quotes."""


def _words(command: str) -> list[str]:
    """Without what follows the command: an explanation, a redirection, the columns that a table shows."""
    words = []
    for word in shlex.split(_END.split(command)[0], comments=True):
        if word in ("|", ">", "2>", "&&", ";"):
            break
        words.append(word)
    return words


def yaml_files(text: str) -> dict[str, str]:
    """Name -> content of each code block whose first line is a comment with the name of a YAML file."""
    blocks = re.findall(r"^```yaml\n# (\S+\.yaml)\b[^\n]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return dict(blocks)
