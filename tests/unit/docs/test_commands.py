"""The command line takes every `mfs` command on a page, with its scenario, keys and policies."""

import functools
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import typer
from doc_pages import PAGES, ROOT, commands, name_of, yaml_files

from controller.policies import registry
from experiments.cli.app import app
from experiments.results.paired import WINDOW
from experiments.scenario.gpu_profile import profile_text
from experiments.scenario.keys import field_at
from experiments.scenario.overrides import overrides_of
from experiments.scenario.reading import builtin_scenarios, read_scenario
from experiments.sweep.plan import as_text, read_over
from testbed.models.gpus import GPUS

PLACEHOLDERS = {
    "SCENARIO": "quickstart",
    "runs/…/scenario.yaml": "quickstart",
    "KEY=VALUE": "seed=2",
    "SPEC": "mfs",
    "KIND": "mooncake",
} | dict.fromkeys(("N", "R", "D", "S", "SEED"), "2")
"""What a page writes for something the reader fills in, and a value that stands for it."""

READERS_FILES = {
    "conversation_trace.jsonl": '{"timestamp": 0, "input_length": 9, "output_length": 5, "hash_ids": [0]}\n',
    "qwen_traceA_blksz_16.jsonl": (
        '{"chat_id": 1, "parent_chat_id": -1, "timestamp": 0.0, "input_length": 16, "output_length": 2,'
        ' "type": "text", "turn": 1, "hash_ids": [1]}\n'
    ),
    "FB2010-1Hr-150-0.txt": "150 1\n1 0 1 1 1 2:1.0\n",
    "network.csv": "from,to,gbps\nh1,s1,9\nh2,s1,9\nh3,s1,9\n",
    "burst1.jsonl": '{"format": "mfs-requests", "version": 1, "block_tokens": 512, "labels": []}\n'
    '{"arrival_ns": 0, "prompt_tokens": 9, "output_tokens": 1}\n',
    "twice.jsonl": '{"timestamp": 0, "input_length": 9, "output_length": 1, "hash_ids": [0]}\n' * 2,
    "trace.csv": "TIMESTAMP,ContextTokens,GeneratedTokens\n2026-01-05 09:00:00.1,500,252\n",
    "gpu.yaml": profile_text(GPUS["h100"], ""),
}
"""What pages let the reader have or make, and what is in it."""


@pytest.fixture(scope="module")
def readers_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that pages speak of. Commands are only checked, so nothing changes in it."""
    folder = tmp_path_factory.mktemp("reader")
    for name, content in READERS_FILES.items():
        (folder / name).write_text(content, encoding="utf-8")
    for page in PAGES:
        for name, content in yaml_files(page.read_text(encoding="utf-8")).items():
            (folder / name).write_text(content, encoding="utf-8")
    shutil.copytree(ROOT / "experiments" / "paper", folder / "experiments" / "paper")
    return folder


@pytest.fixture(autouse=True)
def _in_the_readers_folder(readers_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(readers_folder)


@pytest.fixture(autouse=True)
def _readers_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The policy that a page lets the reader write."""
    page = (ROOT / "docs/policies/adding-a-policy.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"^```python\n# small_first\.py\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {"__name__": "small_first"}
    exec(text, names)
    monkeypatch.setitem(registry._POLICIES, "small-first", names["SmallFirst"])


SHOWN = {
    f"{name_of(page)}: mfs {' '.join(words)}": words
    for page in PAGES
    for words in commands(page.read_text(encoding="utf-8"))
}


@pytest.mark.parametrize("words", SHOWN.values(), ids=SHOWN)
def test_a_command_on_a_page_is_valid(words: list[str]) -> None:
    check(words)


@functools.cache
def command_line() -> Any:
    return typer.main.get_command(app)


def check(words: list[str]) -> None:
    """Raise what the command line answers to a command it does not take."""
    command = command_line()
    rest = [filled for word in words if (filled := fill(word))]
    while hasattr(command, "commands") and rest and not rest[0].startswith("-"):
        if rest[0] not in command.commands:
            raise LookupError(f"there is no command {rest[0]!r}")
        command, rest = command.commands[rest[0]], rest[1:]
    if rest and rest not in (["--help"], ["--version"]):
        check_scenario(command.make_context(command.name, rest).params)


def fill(word: str) -> str:
    """`word` of a synopsis as a reader would write it; empty where any more words may stand."""
    word = word.strip("[]").split("|")[0]
    return "" if word in ("...", "SETTINGS") else PLACEHOLDERS.get(word, word)


def check_scenario(options: dict[str, object]) -> None:
    scenario = options.get("scenario") or options.get("name") or "quickstart"
    settings = [text for text in strings(options.get("settings")) if not is_placeholder(text)]
    policies = strings(options.get("policy"))
    if "scenario" in options or "settings" in options:
        layers(str(scenario)).scenario(overrides_of(settings, policies, None))
    for text in strings(options.get("over")):
        over = read_over(text)
        if over.key == WINDOW:  # no key of a scenario, and pages name traces that are not here
            continue
        for value in over.values:
            changed = overrides_of([*settings, f"{over.key}={as_text(value)}"], [], None)
            layers(str(scenario)).scenario(changed)


layers = functools.cache(read_scenario)
"""The files of a scenario, which most commands name, are read once."""


def strings(value: object) -> list[str]:
    return [str(one) for one in value] if isinstance(value, (list, tuple)) else []


def is_placeholder(text: str) -> bool:
    """Whether `text` is KEY=VALUE with a value in capitals: then only the key is checked."""
    key, _, value = text.partition("=")
    if not value.isupper():
        return False
    if field_at(tuple(key.split("."))) is None:
        raise LookupError(f"there is no key {key!r}")
    return True


@pytest.mark.parametrize(
    "words",
    [
        "rum quickstart",
        "run quickstrat",
        "run quickstart --sed 1",
        "run quickstart --set workload.lod=1",
        "run quickstart --set workload.load=-1",
        "run quickstart --policy fare",
        "sweep quickstart --over workload.lod=1,2",
        "bench simm",
    ],
)
def test_a_command_that_is_not_valid_is_found(words: str) -> None:
    with pytest.raises(
        Exception, match=r"(?i)no such option|no scenario|unknown key|out of range|there is no"
    ):
        check(words.split())


def test_commands_are_found_where_pages_show_them() -> None:
    text = (
        "`mfs run a`, `mfs + requests` and `make test`\n\n"
        "```\n$ mfs run b \\\n    --seed 1  # why\n.venv/bin/mfs doctor > x\n```\n\n"
        "    mfs run c      prints\n\n<!-- remake: mfs sweep d\n--over seed=1,2 | column -->\n"
    )

    assert list(commands(text)) == [
        ["run", "b", "--seed", "1"],
        ["doctor"],
        ["run", "c"],
        ["sweep", "d", "--over", "seed=1,2"],
        ["run", "a"],
    ]
    assert "quickstart" in builtin_scenarios()
