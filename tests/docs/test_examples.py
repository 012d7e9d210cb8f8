"""Every example of the documents runs, and says what the documents say it says.

In a document, in order and in one folder that also has `scenarios/` and `bootstrap/`:

- a ```python block that begins with `# name.py` is that file; in references, it is a whole scenario, or the body of
  one on five local machines (roles `boot` 1 and `peer` 4), and must pass;
- a ```console block is commands (`$ ...`) and what they print.  Lines are compared loosely: run ids, lengths of time
  and paths may differ, `...` stands for any lines, and the rest must be there in this order.  A command must succeed
  unless `$ echo $?` follows it.
- Blocks without a language, or with another, are not examples.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.scenario import play as playing
from tests.sshd import need_isolation, need_sshd

REPO = Path(__file__).parents[2]
DOCUMENTS = [
    "README.md", "docs/tutorial.md", "docs/hosts.md", "docs/fleets.md", "docs/exec.md", "docs/runs.md", "docs/logs.md",
    "docs/bench.md", "docs/broker.md",
]  # fmt: skip
SNIPPETS = ["docs/scenario-api.md", "docs/choreography.md", "docs/files.md"]
NOT_HERE = ("make ",)  # commands that the tests themselves are a part of
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TIMEOUT = 60.0


class Command(NamedTuple):
    text: str
    printed: list[str]
    code: int


def blocks(document: str) -> list[tuple[str, str, int]]:
    """(language, text, line number)"""
    text = (REPO / document).read_text()
    return [(m[1], m[2], text[: m.start()].count("\n") + 2) for m in FENCE.finditer(text)]


def commands(block: str) -> Iterator[Command]:
    found: list[Command] = []
    for line in block.splitlines():
        if line.startswith("$ "):
            found.append(Command(line[2:], [], 0))
        else:
            found[-1].printed.append(line)
    for command, following in zip(found, [*found[1:], None], strict=True):
        if command.text == "echo $?":
            continue
        code = int(following.printed[0]) if following and following.text == "echo $?" else 0
        yield command._replace(code=code)


def loosely(line: str) -> str:
    line = re.sub(r"/\S+", "PATH", line.rstrip())
    line = re.sub(r"\b\d{8}-\d{6}-[0-9a-f]{4}\b", "ID", line)
    line = re.sub(r"\b\d+(\.\d+)*( ?ms|s|m\d+s)\b", "TIME", line)
    line = re.sub(r"\b\d+:\d\d:\d\d\b", "TIME", line)
    line = re.sub(r" {2,}", "  ", line)  # the width of a table's columns
    line = re.sub(r"\bPython 3\.\d+\.\d+", "PYTHON", line)
    return re.sub(r"\b\d+\.\d+\.\d+\.\d+\b", "ADDRESS", line)


def missing(expected: list[str], printed: list[str]) -> str | None:
    """The first expected line that is not there in its place; None when all are.  `...` skips."""
    at, skip = 0, False
    lines = [loosely(line) for line in printed]
    for line in expected:
        if line == "...":
            skip = True
            continue
        wanted = loosely(line)
        try:
            found = lines.index(wanted, at)
        except ValueError:
            return line
        if found != at and not skip:
            return line
        at, skip = found + 1, False
    return None


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A user's home with `fanout` on the PATH, and `scenarios/` and `bootstrap/` in it.

    A process whose number a document has left in a `.pid` file is ended at the end.
    """
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "fanout").write_text(f'#!/bin/sh\nPYTHONPATH={REPO} exec {sys.executable} -m fanout.cli "$@"\n')
    (programs / "fanout").chmod(0o755)
    home = tmp_path / "home"
    for folder in ("scenarios", "bootstrap"):
        shutil.copytree(REPO / folder, home / folder)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(home))
    for name in ("FANOUT_FLEET", "FANOUT_DEBUG", "XDG_STATE_HOME", "SSH_AUTH_SOCK"):
        monkeypatch.delenv(name, raising=False)
    yield home
    for path in home.glob("*.pid"):
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(path.read_text()), signal.SIGTERM)


@pytest.fixture
def labs() -> Iterator[None]:
    need_sshd()
    need_isolation()
    yield
    subprocess.run(["fanout", "lab", "down", "--all"], capture_output=True, timeout=TIMEOUT, check=False)


@pytest.mark.parametrize(
    "document", [pytest.param(d, marks=pytest.mark.lab if "docs/" in d else ()) for d in DOCUMENTS]
)
def test_what_a_document_shows_is_what_happens(
    document: str, place: Path, request: pytest.FixtureRequest
) -> None:
    if re.search("fanout lab up|--offer lab", (REPO / document).read_text()):
        request.getfixturevalue("labs")
    ran = 0
    for language, text, number in blocks(document):
        if language == "python":
            name = re.match(r"# (\w+\.py)\n", text)
            assert name, f"{document}:{number}: a file's name comes first"
            # The name in the document is not a line of the file, so that line numbers are as a reader counts them.
            (place / name[1]).write_text(text[name.end() :])
        elif language == "console":
            for command in commands(text):
                if command.text.startswith(NOT_HERE):
                    continue
                where = f"{document}:{number}: $ {command.text}"
                done = subprocess.run(
                    ["sh", "-c", command.text], cwd=place, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT, text=True, timeout=TIMEOUT, check=False,
                )  # fmt: skip
                assert done.returncode == command.code, f"{where}\n{done.stdout}"
                line = missing(command.printed, done.stdout.splitlines())
                assert line is None, f"{where}\nhas not, or not there: {line!r}\n{done.stdout}"
                ran += 1
    assert ran, "the document has lost its examples"


def snippets() -> list[object]:
    return [
        pytest.param(text, id=f"{document}:{number}")
        for document in SNIPPETS
        for language, text, number in blocks(document)
        if language == "python"
    ]


@pytest.mark.parametrize("text", snippets())
async def test_each_snippet_is_part_of_a_scenario_that_passes(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # some make files where they are run
    (tmp_path / "scenarios").symlink_to(REPO / "scenarios")  # some ship it
    if "@scenario" in text:
        path = tmp_path / "tested.py"
        path.write_text(text)
    else:
        path = playing.write(tmp_path, text, 'machines={"boot": 1, "peer": 4}, ttl="2m"')
    result, seen = await playing.play(path, machines=None, place=(tmp_path / "machines").joinpath)
    assert result.outcome == "passed", result.reason
    assert not seen.warnings


def test_links_between_documents_lead_somewhere() -> None:
    dead = []
    for path in [REPO / "README.md", REPO / "CHANGELOG.md", *sorted((REPO / "docs").glob("*.md"))]:
        for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
            name, _, anchor = target.partition("#")
            if "://" in target:
                continue
            there = path.parent / name if name else path
            if not there.exists():
                dead.append(f"{path.name}: {target}")
            elif anchor and anchor not in anchors(there):
                dead.append(f"{path.name}: {target}: no such heading")
    assert not dead


def anchors(path: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
