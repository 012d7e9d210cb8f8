"""The agent as it is shipped: built from this installation's own sources and the installed msgpack.

Only msgpack's pure-Python files travel, and none of them is part of this repository.  Comments and docstrings
stay at home (line numbers stay right), so that the source is small; for machines whose Python is equal to the
root's, compiled code is sent instead, which spares each of them the compiling.
"""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import io
import marshal
import os
import subprocess
import sys
import tokenize
import zlib
from functools import lru_cache
from hashlib import blake2b
from importlib.resources import files
from pathlib import Path
from typing import Any

import msgpack

from fanout.agent.core.bootstrap import Payload
from fanout.errors import FanoutError

MSGPACK = ("__init__", "exceptions", "fallback")
SKIP = ("stage0", "extension")
PARTS = {
    "each": ("member",),
    "fetch": ("collecting", "core.parcels", "fetching", "following", "streams"),
    "files": ("blobs", "contention", "core.blocks", "core.concurrency", "core.feed", "shipping", "unpack"),
    "remote": ("core.preamble", "remote"),
}
"""Modules that travel apart from the agent, before the first command that needs them (`Session.call`)."""
COMPILING = 60.0  # s, for what takes a fifth of one
_COMPILE = """
import marshal, sys
modules = marshal.loads(sys.stdin.buffer.read())
for name, source in modules.items():
    path = name.replace(".", "/") + ".py"
    modules[name] = marshal.dumps(compile(source, path, "exec", dont_inherit=True, optimize=2))
sys.stdout.buffer.write(marshal.dumps(modules))
"""
KEPT = 8  # payloads in the cache: one for each installation and Python that was used lately


def strip(source: str) -> str:
    """Source without comments and docstrings, each line still at its place."""
    lines = source.splitlines(keepends=True)
    blank: list[tuple[tuple[int, int], tuple[int, int], str]] = []
    previous = tokenize.NEWLINE
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            blank.append((token.start, token.end, ""))
        elif token.type == tokenize.STRING and previous in (tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT):
            blank.append((token.start, token.end, '""'))
        if token.type not in (tokenize.COMMENT, tokenize.NL):
            previous = token.type
    for (row, column), (end_row, end_column), instead in reversed(blank):
        first, last = lines[row - 1], lines[end_row - 1]
        if row == end_row:
            lines[row - 1] = first[:column] + instead + first[end_column:].lstrip(" ")
        else:
            lines[row - 1] = first[:column] + instead + "\n"
            for between in range(row, end_row - 1):
                lines[between] = "\n"
            lines[end_row - 1] = last[end_column:].lstrip(" ")
    return "".join(line.rstrip() + "\n" for line in lines)


def untyped(source: str) -> str:
    """Source without annotations and `if TYPE_CHECKING:` blocks, which mean nothing at run time; lines stay."""
    lines = [line.encode() for line in source.splitlines()]  # the columns of `ast` count bytes
    cuts: list[tuple[int, int, int]] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            cuts += [(row, 0, len(lines[row - 1])) for row in range(node.lineno, (node.end_lineno or 0) + 1)]
        elif isinstance(node, ast.Assign) and ast.unparse(node) == "TYPE_CHECKING = False":
            cuts.append((node.lineno, 0, len(lines[node.lineno - 1])))
        elif isinstance(node, ast.arg) and node.annotation is not None:
            cuts += _cut(node.lineno, node.col_offset + len(node.arg.encode()), node.annotation)
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            cuts += _cut(node.target.end_lineno or 0, node.target.end_col_offset or 0, node.annotation)
        elif isinstance(node, ast.FunctionDef) and node.returns is not None:
            arrow = lines[node.returns.lineno - 1].rfind(b"->", 0, node.returns.col_offset)
            if arrow >= 0:
                cuts += _cut(node.returns.lineno, arrow, node.returns)
    for row, start, end in sorted(cuts, reverse=True):
        lines[row - 1] = lines[row - 1][:start] + lines[row - 1][end:]
    return "".join(line.decode().rstrip() + "\n" for line in lines)


def _cut(row: int, start: int, annotation: ast.expr) -> list[tuple[int, int, int]]:
    """The stretch up to the annotation's end, where it is on one line; others stay."""
    whole = annotation.lineno == annotation.end_lineno == row
    return [(row, start, annotation.end_col_offset or 0)] if whole else []


def compact(source: str) -> str:
    """The same tokens with tabs to indent, and no space that is not needed; lines stay."""
    lines: dict[int, str] = {}
    depth = 0
    before: tokenize.TokenInfo | None = None
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        row = token.start[0]
        if token.type in (tokenize.INDENT, tokenize.DEDENT):
            depth += 1 if token.type == tokenize.INDENT else -1
        elif token.string.strip() and token.type != tokenize.ENDMARKER:
            if before is None or before.end[0] != row:
                space = "\t" * depth if before is None or before.type == tokenize.NEWLINE else ""
            else:
                words = tokenize.OP not in (token.type, before.type)
                space = " " if words and before.end != token.start else ""
            first, *more = token.string.split("\n")
            lines[row] = lines.get(row, "") + space + first
            lines.update({row + i: line for i, line in enumerate(more, 1)})
        if token.type not in (tokenize.INDENT, tokenize.DEDENT, tokenize.NL):
            before = token
    return "".join(lines.get(row, "") + "\n" for row in range(1, max(lines, default=0) + 1))


class Whole(Payload):
    """The agent as the root has it: with the parts that travel later."""

    def __init__(self, build: str, stage0: bytes, source: bytes, codes: dict[str, bytes],
                 parts: dict[str, dict[str, bytes]]) -> None:
        super().__init__(build, stage0, source, codes)
        self.parts = parts
        """By name: its source under "", its code under the magic number that it is for."""


def part_of(module: str) -> str:
    """The part that a module of the agent travels in; empty for what every machine has from the start."""
    names = [name for name, modules in PARTS.items() if module.removeprefix("fanout.agent.") in modules]
    return names[0] if names else ""


def raw_sources() -> dict[str, str]:
    """Module name -> text as installed, for everything the agent consists of; packages end in `.__init__`."""
    found = {"fanout.__init__": ""}
    agent = files("fanout.agent")
    for prefix, folder in (("fanout.agent.", agent), ("fanout.agent.core.", agent / "core")):
        for entry in sorted(folder.iterdir(), key=lambda e: e.name):
            name = entry.name.removesuffix(".py")
            if entry.name.endswith(".py") and name not in SKIP:
                found[prefix + name] = entry.read_text()
    spec = importlib.util.find_spec("msgpack")
    if spec is None or not spec.submodule_search_locations:
        raise FanoutError("the Python package msgpack is not installed: pip install msgpack")
    folder_of = Path(spec.submodule_search_locations[0])
    for name in MSGPACK:
        found[f"msgpack.{name}"] = (folder_of / f"{name}.py").read_text()
    # Datetimes would only be packed if we asked for it, and their import alone is a tenth of an agent's start.
    found["msgpack.fallback"] = found["msgpack.fallback"].replace(
        "\nfrom datetime import datetime as _DateTime\n", "\n_DateTime = None\n")
    found["msgpack.ext"] = (agent / "extension.py").read_text()
    return found


def compiled(modules: dict[str, str]) -> dict[str, bytes]:
    """Each module as code for this Python; FanoutError where it cannot be made.

    Without the columns of each instruction, for which only a Python of its own can be told: a third of the size, and
    tracebacks have no use for them where the source is not.
    """
    argv = [sys.executable, "-I", "-S", "-X", "no_debug_ranges", "-c", _COMPILE]
    try:
        done = subprocess.run(argv, input=marshal.dumps(modules), capture_output=True, timeout=COMPILING, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        said = (getattr(error, "stderr", None) or b"").decode(errors="replace").strip()
        raise FanoutError(f"the agent cannot be compiled by {sys.executable}: {said or error}") from None
    found: dict[str, bytes] = marshal.loads(done.stdout)  # noqa: S302
    return found


def build(raw: dict[str, str], raw_stage0: str) -> Whole:
    """Strip, compile, compress: some 200 ms."""
    modules = {name: compact(untyped(strip(text))) for name, text in raw.items()}
    stage0 = strip(raw_stage0).encode()
    digest = blake2b(stage0, digest_size=8)
    for name, source in modules.items():
        digest.update(name.encode() + b"\0" + source.encode())
    head = {"": digest.hexdigest().encode()}
    code = compiled(modules)
    squeezed: dict[str, dict[str, bytes]] = {}
    for part in ("", *PARTS):
        names = [name for name in modules if part_of(name) == part]
        first = {} if part else head
        squeezed[part] = {
            "": _squeeze({**first, **{name: modules[name] for name in names}}, 9),
            importlib.util.MAGIC_NUMBER.hex(): _squeeze({**first, **{name: code[name] for name in names}}, 6),
        }
    codes = squeezed.pop("")
    return Whole(digest.hexdigest(), stage0, codes.pop(""), codes, squeezed)


def _squeeze(modules: dict[str, Any], level: int) -> bytes:
    squeeze = zlib.compressobj(level, memLevel=9)
    return squeeze.compress(marshal.dumps(modules, 2)) + squeeze.flush()


@lru_cache(maxsize=1)
def payload() -> Whole:
    """The agent of this installation; built once per installation and Python, then kept in the user's cache."""
    raw = raw_sources()
    raw_stage0 = (files("fanout.agent") / "stage0.py").read_text()
    digest = blake2b(importlib.util.MAGIC_NUMBER + Path(__file__).read_bytes() + raw_stage0.encode(), digest_size=16)
    for name, text in raw.items():
        digest.update(name.encode() + b"\0" + text.encode())
    path = cache_folder() / f"agent-{digest.hexdigest()}"
    kept = _read(path)
    if kept is None:
        kept = build(raw, raw_stage0)
        _write(path, kept)
    return kept


def cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    return Path(base) / "fanout"


def _read(path: Path) -> Whole | None:
    """None where there is none, where it is damaged, or where anyone else could have written it."""
    try:
        state = path.stat()
        if state.st_uid != os.getuid() or state.st_mode & 0o022:
            return None
        data = path.read_bytes()
        if blake2b(data[32:], digest_size=32).digest() != data[:32]:
            return None
        return Whole(*msgpack.unpackb(data[32:]))
    except (OSError, ValueError, TypeError, msgpack.UnpackException):
        return None


def _write(path: Path, made: Whole) -> None:
    """Best effort: without a cache, every start takes a little longer."""
    data = msgpack.packb([made.build, made.stage0, made.source, made.codes, made.parts])
    with contextlib.suppress(OSError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.name}.{os.getpid()}")
        temporary.touch(mode=0o600)
        temporary.write_bytes(blake2b(data, digest_size=32).digest() + data)
        temporary.replace(path)
        for old in sorted(path.parent.glob("agent-*"), key=lambda p: p.stat().st_mtime)[:-KEPT]:
            old.unlink()
