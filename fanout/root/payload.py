"""The agent as it is shipped: built from this installation's own sources and the installed msgpack.

Only msgpack's pure-Python files travel, and none of them is part of this repository.  Comments and docstrings
stay at home (line numbers stay right), so that the source is small; for machines whose Python is equal to the
root's, compiled code is sent instead, which spares each of them the compiling.
"""

from __future__ import annotations

import importlib.util
import io
import marshal
import tokenize
import zlib
from functools import lru_cache
from hashlib import blake2b
from importlib.resources import files
from pathlib import Path

from fanout.agent.core.bootstrap import Payload
from fanout.errors import FanoutError

MSGPACK = ("__init__", "exceptions", "ext", "fallback")
SKIP = ("stage0",)


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


def sources() -> dict[str, bytes]:
    """Module name -> source, for everything the agent consists of; packages end in `.__init__`."""
    found: dict[str, bytes] = {"fanout.__init__": b""}
    agent = files("fanout.agent")
    for prefix, folder in (("fanout.agent.", agent), ("fanout.agent.core.", agent / "core")):
        for entry in sorted(folder.iterdir(), key=lambda e: e.name):
            name = entry.name.removesuffix(".py")
            if entry.name.endswith(".py") and name not in SKIP:
                found[prefix + name] = strip(entry.read_text()).encode()
    spec = importlib.util.find_spec("msgpack")
    if spec is None or not spec.submodule_search_locations:
        raise FanoutError("the Python package msgpack is not installed: pip install msgpack")
    folder_of = Path(spec.submodule_search_locations[0])
    for name in MSGPACK:
        found[f"msgpack.{name}"] = strip((folder_of / f"{name}.py").read_text()).encode()
    return found


@lru_cache(maxsize=1)
def payload() -> Payload:
    """Built once per process (some tens of ms)."""
    modules: dict[str, bytes] = sources()
    stage0 = strip((files("fanout.agent") / "stage0.py").read_text()).encode()
    digest = blake2b(stage0, digest_size=8)
    for name, source in modules.items():
        digest.update(name.encode() + b"\0" + source)
    build = digest.hexdigest()
    head = {"": build.encode()}
    code = {
        name: marshal.dumps(compile(source, name.replace(".", "/") + ".py", "exec", dont_inherit=True, optimize=2))
        for name, source in modules.items()
    }
    return Payload(
        build,
        stage0,
        zlib.compress(marshal.dumps({**head, **modules}, 2), 9),
        {importlib.util.MAGIC_NUMBER.hex(): zlib.compress(marshal.dumps({**head, **code}, 2), 6)},
    )
