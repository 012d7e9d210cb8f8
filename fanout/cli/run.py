"""`fanout run`: options in, exit code out; the run itself is the runner's."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import Any

import click

from fanout.cli.leaving import completed, leave
from fanout.cli.main import INTERRUPTED
from fanout.cli.types import counts, duration, pairs, relays
from fanout.errors import FanoutError, UsageError
from fanout.report.console import Console
from fanout.report.folder import LIVE, RunFolder, new_run_id, result_text
from fanout.report.junit import write_junit
from fanout.root.outcomes import RunOutcome, RunResult
from fanout.scenario.observers import Observers

EXIT = {
    RunOutcome.PASSED: 0,
    RunOutcome.FAILED: 1,
    RunOutcome.ERROR: 1,
    RunOutcome.INTERRUPTED: INTERRUPTED,
}


class Watching(Observers):
    """The run's folder, and the console, whose last word is what holds: without its result kept no run has passed."""

    def __init__(self, folder: RunFolder, console: Console) -> None:
        super().__init__([folder, console])
        self._folder = folder
        self._console = console

    def finished(self, result: RunResult) -> None:
        try:
            self._folder.finished(result)  # also when it has stopped: there may be room by now
        except FanoutError as error:
            if result.outcome is RunOutcome.PASSED:
                result.outcome, result.reason = RunOutcome.ERROR, f"it went well, but {error}"
            else:
                self._console.warning(str(error))
        self._console.finished(result)


@click.command("run", short_help="Run a scenario on a fleet.")
@click.argument("scenario", type=click.Path(path_type=Path), metavar="SCENARIO.py")
@click.argument("name", required=False)
@click.option(
    "-n", "--machines", type=click.IntRange(min=1), metavar="N",
    help="How many machines; by default what the scenario or the fleet says.",
)  # fmt: skip
@click.option(
    "--role", "roles", metavar="NAME=N", multiple=True, callback=counts,
    help="How many machines of a role, such as peer=200; may be repeated.",
)  # fmt: skip
@click.option(
    "--arg", "args", metavar="KEY=VALUE", multiple=True, callback=pairs,
    help="A parameter of the scenario, such as rounds=5; may be repeated.",
)  # fmt: skip
@click.option(
    "--fleet", default="local", envvar="FANOUT_FLEET", show_envvar=True, show_default=True, metavar="SPEC",
    help="Where machines come from: local, lab, hosts:FILE, hosts:NAMES, exec:PROGRAM, aws:FILE.toml, "
    "broker:https://HOST.",
)  # fmt: skip
@click.option(
    "--relays", metavar="auto|K", callback=relays, default="auto", show_default=True,
    help="How many machines relay for others; 0: the root reaches each itself.",
)  # fmt: skip
@click.option(
    "--depth", type=click.IntRange(min=1), metavar="N",
    help="Links from the root to the farthest leaf.",
)  # fmt: skip
@click.option("--width", type=click.IntRange(min=1), metavar="N", help="Children of one relay, at most.")
@click.option(
    "--timeout", metavar="DURATION", callback=duration,
    help="For the whole run; by default the scenario's ttl, or 1h.",
)  # fmt: skip
@click.option(
    "--connect-timeout", metavar="DURATION", callback=duration, default="60s", show_default=True,
    help="Until every machine is connected, or given up.",
)  # fmt: skip
@click.option(
    "--lease", metavar="DURATION", callback=duration, default="60s", show_default=True,
    help="How long a machine that hears nothing from the root works on before it cleans up and ends.",
)  # fmt: skip
@click.option(
    "--run-dir", type=click.Path(path_type=Path), metavar="DIR",
    help="The run's folder, new or empty; by default one below ~/.local/state/fanout/runs.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print result.json on stdout, all else on stderr.")
@click.option("-q", "--quiet", is_flag=True, help="Only what the scenario says, warnings, and failure.")
@click.option(
    "--junit", "junit_file", type=click.Path(path_type=Path), metavar="FILE",
    help="Write the result as JUnit XML too.",
)  # fmt: skip
@click.option(
    "--kex", metavar="NAME",
    help="SSH key exchange between machines; by default the fastest that both have.",
)  # fmt: skip
@click.option(
    "--cipher", metavar="NAME",
    help="SSH cipher between machines; by default the fastest that both have.",
)  # fmt: skip
@click.option(
    "--forward-agent", is_flag=True,
    help="Let relays log in to their machines by your SSH agent, instead of by keys of their own.",
)  # fmt: skip
@click.option(
    "--keep", metavar="DURATION", callback=duration,
    help="After a failure, keep the machines that the fleet has made, to look at, for so long.",
)  # fmt: skip
@click.option("-y", "--yes", is_flag=True, help="Whatever the machines cost: no max_cost.")
@click.option("--debug", is_flag=True, help="Show tracebacks of errors; the same as FANOUT_DEBUG=1.")
@click.pass_context
def command(
    ctx: click.Context,
    /,
    scenario: Path,
    fleet: str,
    run_dir: Path | None,
    as_json: bool,
    quiet: bool,
    junit_file: Path | None,
    debug: bool,
    **options: Any,
) -> None:
    """Run the scenario in SCENARIO.py on a fleet; NAME chooses among several in one file.

    \b
    On this machine, five processes without SSH:
      fanout run scenarios/quickstart.py
    On two hundred hosts of your own, behind eight relays, with a parameter of the scenario:
      fanout run scenarios/gossip.py --fleet hosts:nodes.txt -n 200 --relays 8 --arg share=0.5
    In CI:
      fanout run scenarios/gossip.py -n 20 --json --junit gossip.xml > result.json

    Ctrl-C ends a run tidily, within a bound; a second one ends it at once.
    """
    if debug:
        os.environ["FANOUT_DEBUG"] = "1"
    if not scenario.is_file():
        raise UsageError(f"there is no scenario file {scenario}; name a Python file with a @scenario in it")
    if junit_file and not junit_file.absolute().parent.is_dir():
        raise UsageError(f"--junit {junit_file}: there is no folder {junit_file.absolute().parent}")
    run = new_run_id()
    out = sys.stderr if as_json else sys.stdout
    error: BaseException | None = None
    chosen = " ".join(filter(None, [str(scenario), options["name"]]))
    with RunFolder(run, scenario=chosen, fleet=fleet, argv=sys.argv, path=run_dir) as folder:
        with Console(out, folder=folder.path, quiet=quiet) as console:
            try:
                # A scenario's own prints must not get into the JSON.
                with console.printing():
                    given = {"run": run, "fleet": fleet, "place": folder.machine, "live": folder.path / LIVE, **options}
                    result = execute(scenario, given, [Watching(folder, console)])
            except (Exception, KeyboardInterrupt) as raised:
                error = raised
                result = aborted(run, scenario, raised)
        if error and not folder.complete:
            with contextlib.suppress(FanoutError):  # the error itself is what is to be told
                folder.finished(result)
    if junit_file:
        write_junit(junit_file, result)
    if as_json:
        click.echo(result_text(result))
    if error:
        raise error
    leave(EXIT[result.outcome])
    ctx.exit(EXIT[result.outcome])


def aborted(run: str, scenario: Path, error: BaseException) -> RunResult:
    """The result of a run that has none of its own."""
    interrupted = isinstance(error, KeyboardInterrupt)
    outcome = RunOutcome.INTERRUPTED if interrupted else RunOutcome.ERROR
    text = str(error) if isinstance(error, FanoutError) else f"{type(error).__name__} {error}".rstrip()
    return RunResult(run, str(scenario), outcome, "" if interrupted else text)


def execute(scenario: Path, options: dict[str, Any], observers: list[Any]) -> RunResult:
    """The one place that calls the runner; imported here, because it brings asyncssh."""
    from fanout.scenario.runner import RunOptions, run

    result: RunResult = completed(run(scenario, RunOptions(**options), observers))
    return result
