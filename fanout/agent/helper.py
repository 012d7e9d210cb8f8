"""The `fanout` command that every program on a machine finds on its PATH, whatever its language."""

from __future__ import annotations

import os
import sys

from .client import AgentGone, Client, Refused
from .core import limits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

USAGE = """\
usage: fanout report TEXT [KEY=VALUE ...]        a line for the run's report
       fanout metric NAME VALUE [--unit UNIT] [--per machine|role]
       fanout barrier NAME [--role ROLE] [--count N | --quorum Q]
       fanout signal NAME [VALUE]                prints its number: 1 is the first
       fanout wait NAME [--count N]              prints the values, a line each
       fanout publish TOPIC VALUE
       fanout collect TOPIC [--count N] [--after K]

Each waits at most --timeout TIME (60s; 250ms, 2m, 1h).
Exit codes: 0 done, 1 it could not be (the reason is on stderr), 2 usage, 3 there is no run here (any more).
"""

OPTIONS = {
    "report": (), "metric": ("unit", "per"), "barrier": ("role", "count", "quorum"), "signal": (),
    "wait": ("count",), "publish": (), "collect": ("count", "after"),
}
WORDS = {"report": (1, 1000), "metric": (2, 2), "barrier": (1, 1), "signal": (1, 2), "wait": (1, 1),
         "publish": (2, 2), "collect": (1, 1)}


class Usage(Exception):
    pass


def parse(argv: list[str]) -> tuple[str, list[str], dict[str, str]]:
    """(command, words, options); Usage says what is wrong.  By hand, because argparse alone costs 10 ms."""
    if not argv or argv[0] not in OPTIONS:
        raise Usage("there is no %r" % argv[0] if argv else "say what to do")
    command, words, options = argv[0], [], {"timeout": "60"}
    rest = argv[1:]
    while rest:
        word = rest.pop(0)
        if word == "--":
            words += rest
            break
        if not word.startswith("--"):
            words.append(word)
            continue
        name, is_, value = word[2:].partition("=")
        if name not in OPTIONS[command] + ("timeout",):
            raise Usage("%s has no option --%s" % (command, name))
        if not is_:
            if not rest:
                raise Usage("--%s needs a value" % name)
            value = rest.pop(0)
        options[name] = value
    least, most = WORDS[command]
    if not least <= len(words) <= most:
        raise Usage("%s takes %s" % (command, least if least == most else "%d to %d words" % (least, most)))
    return command, words, options


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str("" if value is None else value)


def perform(client: Client, command: str, words: list[str], options: dict[str, str]) -> str:
    """What to print.  ValueError: an option that is no number."""
    timeout = limits.seconds(options["timeout"])
    count = int(options.get("count", "1"))
    if command == "report":
        client.ask("report", words[0], dict(word.partition("=")[::2] for word in words[1:]))
    elif command == "metric":
        label = {"": "", "machine": os.environ.get("FANOUT_NAME", ""), "role": os.environ.get("FANOUT_ROLE", "")}
        client.ask("metric", words[0], float(words[1]), options.get("unit", ""), label[options.get("per", "")])
    elif command == "barrier":
        needed = count if "count" in options else None
        quorum = float(options["quorum"]) if "quorum" in options else None
        client.ask("barrier", words[0], options.get("role"), needed, quorum, timeout)
    elif command in ("signal", "publish"):
        number = client.ask(command, words[0], words[1] if len(words) > 1 else None, timeout)
        return "%d\n" % number if command == "signal" else ""
    else:
        values = client.ask(command, words[0], int(options.get("after", "0")), count, timeout)
        return "".join(_text(value) + "\n" for value in values)
    return ""


def main() -> None:
    if sys.argv[1:] in (["-h"], ["--help"], ["help"]):
        sys.stdout.write(USAGE)
        return
    try:
        sys.stdout.write(perform(Client(), *parse(sys.argv[1:])))
    except Usage as error:
        sys.stderr.write("fanout: %s\n%s" % (error, USAGE))
        sys.exit(2)
    except (ValueError, KeyError) as error:
        sys.stderr.write("fanout: %s\n" % error)
        sys.exit(2)
    except Refused as error:
        sys.stderr.write("fanout: %s\n" % error)
        sys.exit(1)
    except AgentGone as error:
        sys.stderr.write("fanout: %s\n" % error)
        sys.exit(3)
