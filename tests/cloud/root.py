"""Root processes that may be killed at any time: forked from one that has boto3 and its models in memory already.

`Roots` starts `python -m tests.cloud.root`, which reads lines of JSON and forks a process for each: `{"fleet": ...,
"machines": 3, "run": ..., "batch": 100}` makes a fleet and releases it, `{"argv": [...]}` is a command line of
fanout's.  Nobody waits for seconds, and machines are ready as soon as they run: the cloud has no hosts behind it.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import signal
import subprocess
import sys
import tempfile
from types import TracebackType
from typing import Any

SOON = 0.02  # s in place of the fleet's seconds
COMMAND_TIMEOUT = 60.0  # s


class Roots:
    """A context manager; `environment` is what a client of the cloud needs."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._environment = environment
        self._folder = tempfile.TemporaryDirectory(prefix="fanout-roots-")

    def __enter__(self) -> Roots:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.cloud.root"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True,
            env={**os.environ, **self._environment,
                 "TMPDIR": self._folder.name, "XDG_CACHE_HOME": self._folder.name})
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate(timeout=COMMAND_TIMEOUT)
        self._folder.cleanup()

    def start(self, **order: Any) -> int:
        """The pid of a new root."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return int(self._line())

    def wait(self) -> tuple[int, str]:
        """How the last one ended, negative for a signal, and what it said; until then, no other is started."""
        said = []
        while not (line := self._line()).startswith("ended "):
            said.append(line)
        return int(line.split()[1]), "\n".join(said)

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the process that starts roots has ended"
        return line.rstrip("\n")


def main() -> None:
    warm()
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            os._exit(child(json.loads(line)))
        print(pid, flush=True)
        _, status = os.waitpid(pid, 0)
        print(f"\nended {os.waitstatus_to_exitcode(status)}", flush=True)


def warm() -> None:
    """Load and make once what each root would, and shorten its waits."""
    import fanout.cli.reap  # noqa: F401
    from fanout.fleets.aws.api import Api

    for place, name, value in in_short():
        setattr(place, name, value)
    api = Api(None, None)
    for service in "sts", "ssm", "ec2", "pricing":
        api._client(service)


@functools.cache
def in_short() -> list[tuple[Any, str, Any]]:
    """What is to be set where, for fleets of machines that are only in the books: nobody waits for seconds."""
    import boto3
    from botocore.retries.bucket import TokenBucket
    from botocore.retries.standard import ExponentialBackoff, RetryQuotaChecker

    from fanout.fleets.aws import boot, instances, launch, network, ready

    session = boto3.session.Session()
    made: dict[tuple[str, ...], Any] = {}
    make = session.client

    def client(service: str, region_name: str, config: Any) -> Any:
        """To make one for EC2 takes longer than all that a fleet asks of it here."""
        key = (service, region_name, os.environ["AWS_ENDPOINT_URL"])
        if key not in made:
            made[key] = make(service, region_name=region_name, config=config)  # type: ignore[call-overload]
        return made[key]

    session.client = client  # type: ignore[method-assign, assignment]

    async def prepared(self: object, address: str, port: int) -> str:
        return ""

    return [
        (boto3.session, "Session", lambda **given: session),
        (ExponentialBackoff, "delay_amount", lambda self, context: SOON),
        (TokenBucket, "acquire", lambda self, amount=1, block=True: True),
        (RetryQuotaChecker, "acquire_retry_quota", lambda self, context: True),
        (boot, "POLL", SOON), (boot, "POLL_MOST", SOON), (instances, "POLL", SOON), (network, "REPEAT", SOON),
        (launch, "WAIT", SOON), (ready.Readiness, "_probe", prepared),
    ]


def child(order: dict[str, Any]) -> int:
    # An alarm, because nobody would end one that hangs.
    signal.alarm(round(COMMAND_TIMEOUT))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(1, 2)
    try:
        if "argv" in order:
            from fanout.cli.main import main as command

            command(order["argv"])
        else:
            asyncio.run(life(order))
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 1
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", flush=True)
        return 1
    finally:
        sys.stdout.flush()
    return 0


async def life(order: dict[str, Any]) -> None:
    """What a run does with a fleet, without a tree in between."""
    from fanout.fleets import open_fleet
    from fanout.fleets.aws import launch
    from fanout.fleets.base import Request

    launch.BATCH = order["batch"]
    fleet = open_fleet(order["fleet"])
    try:
        await fleet.provision(Request(order["run"], order["machines"]), lambda done, total: None)
    finally:
        await fleet.release()


if __name__ == "__main__":
    main()
