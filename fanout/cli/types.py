"""What options of the command line may hold, beyond what click knows: callbacks that read text."""

from __future__ import annotations

import click

from fanout.durations import parse_duration
from fanout.errors import UsageError


def duration(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """`30s`, `5m`, `1h30m`; as float seconds, more than none."""
    if value is None:
        return None
    try:
        seconds = parse_duration(value)
    except UsageError as error:
        raise click.BadParameter(str(error), ctx, param) from error
    if not seconds:
        raise click.BadParameter("it must be more than 0", ctx, param)
    return seconds


def size(ctx: click.Context, param: click.Parameter, value: str) -> int:
    """`64MB`, `200KB`, `4096`; as bytes."""
    from fanout.scenario.sizes import parse_size

    try:
        return parse_size(value)
    except UsageError as error:
        raise click.BadParameter(str(error), ctx, param) from error


def relays(ctx: click.Context, param: click.Parameter, value: str) -> int | None:
    """`auto`, as None, or a number of relays."""
    if value == "auto":
        return None
    if _is_number(value):
        return int(value)
    text = f"{value!r} is neither 'auto' nor a number of relays, such as 0 (none) or 4"
    raise click.BadParameter(text, ctx, param)


def utf8(text: str, what: str) -> str:
    """The text, which goes to machines as UTF-8; UsageError, with `what` it is, when it holds other bytes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UsageError(f"{what} is not UTF-8: {text!r}") from None
    return text


def run_ids(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """What a shell completes where a run is asked for."""
    from fanout.report.runs import every

    return [name for name in ("last", *(run.id for run in every())) if name.startswith(incomplete)]


def pairs(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """`KEY=VALUE`, repeatable, each key once."""
    found: dict[str, str] = {}
    for value in values:
        name, equals, text = value.partition("=")
        if not name.isidentifier() or not equals:
            raise click.BadParameter(f"{value!r} is not of the form {param.metavar}", ctx, param)
        if name in found:
            raise click.BadParameter(f"{name!r} is given twice", ctx, param)
        found[name] = text
    return found


def counts(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, int]:
    """`NAME=N`, repeatable, with N machines, 1 or more."""
    found = pairs(ctx, param, values)
    for name, text in found.items():
        if not _is_number(text) or not int(text):
            problem = f"{name}={text}: the number of machines must be 1 or more"
            raise click.BadParameter(problem, ctx, param)
    return {name: int(text) for name, text in found.items()}


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 8
