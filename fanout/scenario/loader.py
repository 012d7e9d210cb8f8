"""A scenario file becomes a Scenario, or a UsageError that says where the file is wrong."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, ModuleType

from fanout.errors import UsageError
from fanout.scenario.decorator import Scenario, collecting

FRAMES = 5
"""Most lines of a file's own traceback that are shown."""


@contextmanager
def beside(folder: Path) -> Iterator[None]:
    """While it lasts, modules in the folder can be imported; afterwards they are forgotten again."""
    place = str(folder.resolve())
    before = set(sys.modules)
    sys.path.insert(0, place)
    try:
        yield
    finally:
        if place in sys.path:
            sys.path.remove(place)
        for name in set(sys.modules) - before:
            file = getattr(sys.modules[name], "__file__", None)
            if file and Path(file).is_relative_to(place):
                del sys.modules[name]


def load(path: Path, name: str | None = None) -> Scenario:
    """The scenario `name` of the file, or its only one.  Use it within `beside(path.parent)`."""
    found = scenarios(path)
    listed = ", ".join(one.name for one in found)
    if name is None:
        if len(found) > 1:
            raise UsageError(f"{path} has several scenarios: name one of {listed}")
        return found[0]
    for one in found:
        if one.name == name:
            return one
    raise UsageError(f"{path} has no scenario {name!r}; it has {listed}")


def scenarios(path: Path) -> list[Scenario]:
    """All scenarios that the file itself defines, in order; at least one."""
    code = _compile(path)
    module = ModuleType(f"fanout-scenario:{path.stem}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # dataclasses and pickles look their module up
    found: list[Scenario] = []
    token = collecting.set(found)
    try:
        exec(code, module.__dict__)  # noqa: S102  running the user's file is the point
    except UsageError as error:
        raise UsageError(f"{path} does not load: {error}{_where(error, path)}") from error
    except (Exception, SystemExit) as error:
        said = "".join(traceback.format_exception_only(error)).strip()
        raise UsageError(f"{path} does not load: {said}{_where(error, path)}") from error
    finally:
        collecting.reset(token)
    own = [one for one in found if getattr(one.function, "__globals__", None) is module.__dict__]
    if not own:
        raise UsageError(f"{path} has no scenario: mark an `async def f(fleet)` with @scenario")
    names = [one.name for one in own]
    for one in names:
        if names.count(one) > 1:
            raise UsageError(f"{path} has two scenarios named {one!r}: rename one, or give it name=")
    return own


def _compile(path: Path) -> CodeType:
    try:
        source = path.read_bytes()
    except FileNotFoundError:
        raise UsageError(f"there is no scenario file {path}") from None
    except OSError as error:
        raise UsageError(f"scenario file {path} cannot be read: {error.strerror}") from None
    try:
        return compile(source, str(path), "exec", dont_inherit=True)
    except SyntaxError as error:
        line = f", line {error.lineno}" if error.lineno else ""
        raise UsageError(f"{path}{line} is not Python: {error.msg}") from None
    except ValueError as error:  # NUL bytes, before Python 3.12
        raise UsageError(f"{path} is not Python: {error}") from None


def _where(error: BaseException, path: Path) -> str:
    """The part of the traceback that lies in the user's files."""
    own = path.resolve().parent
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename == str(path) or Path(frame.filename).is_relative_to(own)
    ]
    return "".join(f"\n  {frame.filename}, line {frame.lineno}: {frame.line}" for frame in frames[-FRAMES:])
