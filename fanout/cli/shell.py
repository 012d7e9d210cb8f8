"""`fanout shell`: a prompt over many machines.  The tree of agents stays up, so each line is one message."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fanout.cli.exec import chosen, selection, settings
from fanout.errors import FanoutError, FleetError, UsageError
from fanout.names import expand, fold

if TYPE_CHECKING:
    from fanout.report.gathered import Group
    from fanout.root.session import Session

HISTORY = "~/.local/state/fanout/history"
KEPT_LINES = 2000
CAPTURE = 256 << 10  # bytes kept of each stream of a machine
FOREVER = 7 * 86400.0  # s for a command that nobody interrupts
WORDS = ("!only", "!all", "!quit", "!help")
HELP = """\
LINE             run it by /bin/sh on the chosen machines
!only NAMES      choose machines, such as !only node[1-3]; !only NAMES LINE for one line
!all             choose all again
!quit            end, as Ctrl-D does; Ctrl-C ends too, and kills what runs"""


@click.command("shell", short_help="A prompt over many machines.")
@selection
def command(**options: Any) -> None:
    """A prompt over many machines: each line runs on all of them, and equal answers are shown once.

    \b
    fanout shell -w 'node[1-200]'
    fanout> uptime -p
    node[1-200] (200): up 3 days

    Agents stay up until the end, so a line costs no SSH.  Machines need Python 3.8 or newer.
    """
    hosts = chosen(options)
    asyncio.run(session_over(hosts, options))


async def session_over(hosts: list[Any], options: dict[str, Any]) -> None:
    from fanout.root.machine import Machine
    from fanout.root.planner import plan
    from fanout.root.session import Session

    parents = plan(len(hosts), relays=options["relays"], depth=None, width=None,
                   preferred=[i for i, host in enumerate(hosts) if host.relay]).parents
    session = Session([Machine(i, host, host.role or "") for i, host in enumerate(hosts)], parents, settings(options))
    session.on_down = lambda machines, outcome, reason: _say(f"{_names(session, machines)}: {outcome}: {reason}")
    try:
        await session.connect()
        if not session.up:
            raise FleetError("no machine is connected")
        await Shell(session, options["command_timeout"]).run()
    finally:
        await session.end(grace=0.5)


class Shell:
    def __init__(self, session: Session, timeout: float | None) -> None:
        self.session = session
        self.timeout = timeout
        self.only: int | None = None
        """The chosen machines; None: all that are up."""
        self._terminal = sys.stdin.isatty()

    async def run(self) -> None:
        if not self._terminal:
            await self._lines()
            return
        import termios

        self._set_up()
        modes = termios.tcgetattr(0)
        try:
            await self._lines()
        finally:
            termios.tcsetattr(0, termios.TCSADRAIN, modes)  # the line editor may be at work still
            self._save()

    async def _lines(self) -> None:
        while True:
            try:
                line = (await self._line()).strip()
            except EOFError:
                break
            if line in ("!quit", "!q"):
                break
            try:
                await self.act(line)
            except FanoutError as error:
                _say(str(error))

    async def _line(self) -> str:
        """The next line; by a thread that nobody waits for, so that Ctrl-C at the prompt ends everything at once."""
        loop = asyncio.get_running_loop()
        read: asyncio.Future[str] = loop.create_future()

        def tell(line: str | None) -> None:
            if not read.done():
                if line is None:
                    read.set_exception(EOFError())
                else:
                    read.set_result(line)

        def work() -> None:
            line = None
            with contextlib.suppress(EOFError):
                line = self._read()
            with contextlib.suppress(RuntimeError):  # the loop is gone
                loop.call_soon_threadsafe(tell, line)

        threading.Thread(target=work, daemon=True, name="fanout-prompt").start()
        return await read

    def _read(self) -> str:
        if self._terminal:
            return input(f"fanout [{self._count(self._chosen())}]> ")
        line = sys.stdin.readline()
        if not line:
            raise EOFError
        return line

    @staticmethod
    def _count(machines: int) -> int:
        return machines.bit_count()

    def _chosen(self) -> int:
        up = self.session.up | self.session.detached
        return up if self.only is None else self.only & up

    async def act(self, line: str) -> None:
        """Do what one line says."""
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
        elif word.startswith("!"):
            click.echo(HELP)
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
        from fanout.agent.core.node import DONE
        from fanout.report.gathered import folded

        if not machines:
            raise UsageError("none of the chosen machines is up")
        call = self.session.call(frames.RUN, machines, {
            "shell": line, "timeout": self.timeout, "capture": CAPTURE})
        try:
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
        from fanout.scenario.command import exit_text

        groups = []
        for machines, (outcome, code, out, err, cut) in answers:
            end = "" if outcome == "ok" else "timed out" if outcome == "timed out" else exit_text(code)
            note = f"(and {cut} bytes more)\n".encode() if cut else b""
            names = tuple(self.session.machines[i].name for i in machineset.members(machines))
            groups.append(Group(names, out + err + note, end))
        return sorted(groups, key=lambda group: -len(group.names))

    # The line editor.

    def _set_up(self) -> None:
        import readline

        names = [machine.name for machine in self.session.machines]

        def complete(text: str, state: int) -> str | None:
            found = [word for word in (*WORDS, *names) if word.startswith(text)]
            return found[state] if state < len(found) else None

        readline.set_completer(complete)
        readline.set_completer_delims(" \t\n,;|&<>()")
        readline.parse_and_bind("tab: complete")
        path = Path(HISTORY).expanduser()
        if path.is_file():
            readline.read_history_file(path)
        readline.set_history_length(KEPT_LINES)

    def _save(self) -> None:
        import readline

        path = Path(HISTORY).expanduser()
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600)
            readline.write_history_file(path)


def _names(session: Session, machines: int) -> str:
    from fanout.agent.core import machineset

    return fold(session.machines[i].name for i in machineset.members(machines))


def _say(text: str) -> None:
    from fanout.report.text import clean

    click.echo(f"fanout: {clean(text)}", err=True)
