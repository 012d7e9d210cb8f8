"""The options of `--fleet NAME:...`: words `option=value`, each once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fanout.errors import UsageError


def parse(words: Iterable[str], known: Sequence[str], spec: str) -> dict[str, str]:
    """Option -> value.  UsageError, which names `spec`, for a word that is none of the known ones, or comes twice."""
    options: dict[str, str] = {}
    for word in words:
        name, _, value = word.partition("=")
        if name not in known or not value:
            names = ", ".join(f"{each}=" for each in known)
            raise UsageError(f"--fleet {spec}: {word!r} is not one of {names}")
        if name in options:
            raise UsageError(f"--fleet {spec}: {name}= is given twice")
        options[name] = value
    return options
