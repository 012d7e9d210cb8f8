"""`fanout shell`: a prompt over many machines.  The tree of agents stays up, so each line is one message."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any

import click

from fanout.agent.core.node import DONE
from fanout.cli.selection import Machines, on_machines, selection, tree
from fanout.cli.types import utf8
from fanout.errors import FanoutError, FleetError, UsageError
from fanout.names import expand, fold

if TYPE_CHECKING:
    from prompt_toolkit.history import History

    from fanout.report.gathered import Group
    from fanout.root.call import Call
    from fanout.root.session import Session

CAPTURE = 256 << 10  # bytes kept of each stream of a machine
FOREVER = 7 * 86400.0  # s for a command that nobody interrupts
GRACE = 2.0  # s between TERM and KILL, for a command that Ctrl-C stops
LOOK = 0.3  # s between two looks of the progress
NAMED = 60  # characters of the names of those that are waited for
WORDS = ("!only", "!all", "!quit", "!help")
HELP = """\
LINE             run it by /bin/sh on the chosen machines; each begins in the home folder
!only NAMES      choose machines, such as !only node[1-3]; !only NAMES LINE for one line
!all             choose all again
!quit            end, as Ctrl-D does
Ctrl-C           stop what runs, everywhere; a second time: end"""


@click.command("shell", short_help="A prompt over many machines.")
@selection("as many as are fastest", "Until a line is given up on a machine, and killed there")
@click.pass_context
def command(ctx: click.Context, /, **options: Any) -> None:
    """A prompt over many machines: each line runs on all of them, and equal answers are shown once.

    \b
    fanout shell -w 'node[1-200]'
    fanout> uptime -p
    node[1-200] (200): up 3 days

    Agents stay up until the end, so a line costs no SSH.  Each begins in the home folder there; `!help` tells of
    more, such as `!only node[1-3]`.  Machines need Python 3.8 or newer.
    """
    ctx.exit(on_machines(options, lambda machines: session_over(machines, options)))


async def session_over(machines: Machines, options: dict[str, Any]) -> int:
    session = tree(machines, options)
    session.on_down = lambda machines, outcome, reason: _say(f"{_names(session, machines)}: {outcome}: {reason}")
    try:
        with status() as show:
            await session.connect(lambda done, total: show(f"{done} of {total} machines connected"))
        for note in session.unaided_notes():
            _say(note)
        if not session.up:
            raise FleetError("no machine is connected")
        await Shell(session, options["command_timeout"]).run()
    finally:
        await session.end(grace=0.5)
    return 0


class Shell:
    def __init__(self, session: Session, timeout: float | None) -> None:
        self.session = session
        self.timeout = timeout
        self.only: int | None = None
        """The chosen machines; None: all that are up."""

    async def run(self) -> None:
        """Act on line after line: typed on a terminal, else read to its end."""
        async for line in self._typed() if sys.stdin.isatty() else _read():
            if line in ("!quit", "!q"):
                break
            try:
                await self.act(line)
            except FanoutError as error:
                _say(str(error))

    async def _typed(self) -> AsyncIterator[str]:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.completion import WordCompleter
        from prompt_toolkit.patch_stdout import patch_stdout

        names = [machine.name for machine in self.session.machines]
        completer = WordCompleter([*WORDS, *names], pattern=re.compile(r"[^ \t\n,;|&<>()]+"))
        prompt: PromptSession[str] = PromptSession(history=_history(), completer=completer)
        while True:
            try:
                with patch_stdout(raw=True):  # news of machines goes above the line that is being typed
                    line = await prompt.prompt_async(lambda: f"fanout [{self._chosen().bit_count()}]> ")
            except KeyboardInterrupt:
                continue  # away with the line, as in any shell
            except EOFError:
                return
            yield line.strip()

    def _chosen(self) -> int:
        up = self.session.up | self.session.detached
        return up if self.only is None else self.only & up

    async def act(self, line: str) -> None:
        """Do what one line says."""
        utf8(line, "this line")
        if "\0" in line:
            raise UsageError("a command cannot hold NUL characters")
        word, _, rest = line.partition(" ")
        if not line or line.startswith("#"):
            return
        if word == "!all":
            self.only = None
        elif word == "!only":
            names, _, command = rest.strip().partition(" ")
            machines = self._set(names)
            if command.strip():
                await self._send(command, machines)
            else:
                self.only = machines
        elif word == "!help":
            click.echo(HELP)
        elif word.startswith("!"):
            raise UsageError(f"there is no {word}; there are {', '.join(WORDS)}")
        else:
            await self._send(line, self._chosen())

    def _set(self, names: str) -> int:
        ids = {machine.name: machine.id for machine in self.session.machines}
        wanted = expand(names)
        strange = [name for name in wanted if name not in ids]
        if strange or not wanted:
            raise UsageError(f"{fold(strange)}: no such machine here" if strange else "which? !only node[1-3]")
        return sum(1 << ids[name] for name in wanted)

    async def _send(self, line: str, machines: int) -> None:
        from fanout.agent.core import frames
        from fanout.report.gathered import folded

        if not machines:
            raise UsageError("none of the chosen machines is up")
        call = self.session.call(frames.RUN, machines, {
            "shell": f"cd 2>/dev/null\n{line}", "timeout": self.timeout, "capture": CAPTURE})
        try:
            with self._interruptible(call), progress(self.session, call):
                await call.wait(DONE, timeout=FOREVER)
        finally:
            self.session.forget(call)
        groups = self._groups(call.groups(DONE))
        sys.stdout.buffer.write(folded(groups, sys.stdout.isatty()))
        sys.stdout.buffer.flush()
        for refused, reason in call.refused:
            _say(f"{_names(self.session, refused)}: {reason}")
        if call.lost:
            _say(f"{_names(self.session, call.lost)}: lost")

    def _groups(self, answers: list[tuple[int, Any]]) -> list[Group]:
        from fanout.agent.core import machineset
        from fanout.report.gathered import Group
        from fanout.report.text import size
        from fanout.scenario.command import exit_text

        groups = []
        for machines, (outcome, code, out, err, cut) in answers:
            end = "" if outcome == "ok" else "timed out" if outcome == "timed out" else exit_text(code)
            note = f"\n(and {size(cut)} more that were not kept)\n".encode() if cut else b""
            names = tuple(self.session.machines[i].name for i in machineset.members(machines))
            groups.append(Group(names, out + err + note, end))
        return sorted(groups, key=lambda group: (-len(group.names), group.names))

    @contextlib.contextmanager
    def _interruptible(self, call: Call) -> Iterator[None]:
        """Ctrl-C stops the command wherever it runs; a second one ends the shell, and with it everything."""
        from fanout.agent.core import frames

        loop = asyncio.get_running_loop()

        def interrupt() -> None:
            loop.remove_signal_handler(signal.SIGINT)
            left = call.targets & ~call.settled(DONE)
            self.session.forget(self.session.call(frames.PROCESS, left, [call.number, "stop", GRACE]))

        loop.add_signal_handler(signal.SIGINT, interrupt)
        try:
            yield
        finally:
            loop.remove_signal_handler(signal.SIGINT)


async def _read() -> AsyncIterator[str]:
    """Standard input, line by line, by a thread that nobody waits for: Ctrl-C ends at once."""
    loop = asyncio.get_running_loop()
    lines: asyncio.Queue[str | None] = asyncio.Queue(100)

    def work() -> None:
        with contextlib.suppress(RuntimeError):  # the loop is gone
            for line in itertools.chain(sys.stdin, [None]):
                asyncio.run_coroutine_threadsafe(lines.put(line), loop).result()

    threading.Thread(target=work, daemon=True, name="fanout-input").start()
    while (line := await lines.get()) is not None:
        yield line.strip()


@contextlib.contextmanager
def status() -> Iterator[Callable[[str], None]]:
    """A line at the bottom of a terminal that says what is waited for; nothing elsewhere."""
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda text: None
        return
    with console.status("") as line:
        yield lambda text: line.update(Text(text))


@contextlib.contextmanager
def progress(session: Session, call: Call) -> Iterator[None]:
    """While a command takes longer than a moment: how many have answered, and who have not."""
    loop = asyncio.get_running_loop()
    timer: asyncio.TimerHandle | None = None
    with status() as show:
        def look() -> None:
            nonlocal timer
            left = call.targets & ~call.settled(DONE)
            total = call.targets.bit_count()
            waiting = _names(session, left)
            show(f"{total - left.bit_count()} of {total} answered; Ctrl-C stops {waiting[:NAMED]}")
            timer = loop.call_later(LOOK, look)

        timer = loop.call_later(LOOK, look)
        try:
            yield
        finally:
            timer.cancel()


def _history() -> History:
    """The lines that were typed, in a file of the user's alone; where there can be none, those of this session."""
    from prompt_toolkit.history import FileHistory, InMemoryHistory

    from fanout.report.folder import runs_folder

    path = runs_folder().with_name("history")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        with path.open("ab"):
            return FileHistory(path)
    except OSError as error:
        _say(f"lines are not kept in {path}: {error.strerror}")
        return InMemoryHistory()


def _names(session: Session, machines: int) -> str:
    from fanout.agent.core import machineset

    return fold(session.machines[i].name for i in machineset.members(machines))


def _say(text: str) -> None:
    from fanout.report.text import clean

    print(f"fanout: {clean(text)}", file=sys.stderr)  # rich lifts it above the line of `status`; not so click's echo
