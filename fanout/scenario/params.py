"""Parameters of a scenario: text from --arg becomes the types that the function's signature says."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fanout.errors import UsageError
from fanout.scenario.decorator import Scenario

TRUE = ("true", "yes", "on", "1")
FALSE = ("false", "no", "off", "0")


@dataclass(frozen=True)
class Parameter:
    """A parameter of a scenario, in words."""

    name: str
    type: str
    required: bool
    default: str | None
    """As Python writes it; None when required."""

    def __str__(self) -> str:
        return f"{self.name}: {self.type}" + ("" if self.required else f" = {self.default}")


def bind(scenario: Scenario, args: Mapping[str, str]) -> dict[str, Any]:
    """The arguments to call the scenario with, beside the fleet; defaults included.

    A parameter without an annotation has the type of its default, or is text.  Lists are written with commas; an
    optional value is left out by `none`.  UsageError names what is unknown, missing or malformed.
    """
    known = _declared(scenario)
    for parameter in known.values():
        _check_kind(scenario, parameter)
    for name in args:
        if name not in known:
            there = f"it has {', '.join(known)}" if known else "it has none"
            raise UsageError(f"--arg {name}: scenario {scenario.name} has no such parameter; {there}")
    bound: dict[str, Any] = {}
    for name, parameter in known.items():
        kind = _annotation(scenario, parameter)
        if name in args:
            bound[name] = _convert(kind, args[name], f"--arg {name}={args[name]}")
        elif parameter.default is parameter.empty:
            raise UsageError(f"scenario {scenario.name} needs a value for {name!r}: give --arg {name}=...")
        else:
            bound[name] = parameter.default
    return bound


def parameters(scenario: Scenario) -> tuple[list[Parameter], list[str]]:
    """The parameters that --arg can give, and what is wrong with any of them, all of it."""
    found, wrong = [], []
    for name, parameter in _declared(scenario).items():
        try:
            _check_kind(scenario, parameter)
            kind = _annotation(scenario, parameter)
        except UsageError as error:
            wrong.append(str(error))
            continue
        required = parameter.default is parameter.empty
        if not required and not _fits(kind, parameter.default):
            wrong.append(
                f"scenario {scenario.name}: the default of {name!r}, {parameter.default!r}, is no {_word(kind)}"
            )
        found.append(Parameter(name, _word(kind), required, None if required else repr(parameter.default)))
    return found, wrong


def _declared(scenario: Scenario) -> dict[str, inspect.Parameter]:
    """All but the first, which is the fleet."""
    return dict(list(inspect.signature(scenario.function).parameters.items())[1:])


def _check_kind(scenario: Scenario, parameter: inspect.Parameter) -> None:
    if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
        raise UsageError(f"scenario {scenario.name}: its parameter {parameter} cannot be given by --arg")


def _fits(kind: Any, value: Any) -> bool:
    """Whether a value is of a supported type; a whole number is a number."""
    inner = _optional(kind)
    if inner is not None:
        return value is None or _fits(inner, value)
    if kind is list or typing.get_origin(kind) is list:
        [item] = typing.get_args(kind) or [None]
        return isinstance(value, list) and (item is None or all(_fits(item, each) for each in value))
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, (int, float) if kind is float else kind)


def _word(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) and not typing.get_args(kind) else str(kind)


def _annotation(scenario: Scenario, parameter: inspect.Parameter) -> Any:
    kind = parameter.annotation
    if isinstance(kind, str):
        scope = getattr(scenario.function, "__globals__", {})
        try:
            kind = eval(kind, scope)  # noqa: S307  the user's own annotation
        except Exception as error:
            raise UsageError(f"scenario {scenario.name}: the type of {parameter.name!r}, {kind}: {error}") from None
    if kind is parameter.empty:
        kind = str if parameter.default in (parameter.empty, None) else type(parameter.default)
    if not _supported(kind):
        raise UsageError(
            f"scenario {scenario.name}: parameter {parameter.name!r} is of a type that --arg cannot give;"
            " use int, float, bool, str, a list of these, or Optional"
        )
    return kind


def _supported(kind: Any) -> bool:
    if kind in _SIMPLE or kind is list:
        return True
    if typing.get_origin(kind) is list:
        return all(item in _SIMPLE for item in typing.get_args(kind))
    inner = _optional(kind)
    return inner is not None and _supported(inner)


def _optional(kind: Any) -> Any:
    """`T` of `T | None`; None for anything else."""
    if typing.get_origin(kind) not in (typing.Union, types.UnionType):
        return None
    rest = [item for item in typing.get_args(kind) if item is not type(None)]
    return rest[0] if len(rest) == 1 else None


def _convert(kind: Any, text: str, given: str) -> Any:
    inner = _optional(kind)
    if inner is not None:
        return None if text.lower() == "none" else _convert(inner, text, given)
    if kind is list or typing.get_origin(kind) is list:
        item = (typing.get_args(kind) or (str,))[0]
        return [_convert(item, part.strip(), given) for part in text.split(",")] if text else []
    try:
        return _SIMPLE[kind](text)
    except ValueError:
        raise UsageError(f"{given}: {text!r} is not {_WORDS[kind]}") from None


def _bool(text: str) -> bool:
    if text.lower() not in TRUE + FALSE:
        raise ValueError(text)
    return text.lower() in TRUE


_SIMPLE: dict[Any, Callable[[str], Any]] = {int: int, float: float, bool: _bool, str: str}
_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
