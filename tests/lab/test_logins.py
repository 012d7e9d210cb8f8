"""Accounts whose login does something else than to start a shell at once: what is told of them, and what is ended."""

import asyncio
from dataclasses import replace

import pytest

from fanout.agent.core.preamble import ERR, OUT
from fanout.fleets.base import Host
from fanout.fleets.lab import Lab
from fanout.root.oneshot import Ended, Flat, Job
from fanout.root.outcomes import Outcome
from fanout.root.relayed import Relayed
from fanout.root.settings import Settings
from tests.lab.test_trouble import Labs
from tests.root.test_oneshot import Heard, done
from tests.root.trees import session, until

pytestmark = pytest.mark.lab


def account(lab: Lab, name: str, shell: str) -> Host:
    """An account without rights on the lab's first host: `shell` is a program there, or the text of one."""
    host = lab.hosts[0]
    program = shell
    if shell.startswith("#!"):
        program = f"/bin/shell-of-{name}"
        wrote = lab.run_in(host, ["sh", "-c", f'printf %s "$0" > {program} && chmod 755 {program}', shell])
        assert not wrote.returncode, wrote.stderr
    added = lab.run_in(host, ["sh", "-c", f"echo '{name}:*:4242:4242::/tmp:{program}' >> /etc/passwd"])
    assert not added.returncode, added.stderr
    return Host(name, host.address, user=name, port=host.port, key=str(lab.key), host_keys=host.host_keys)


async def test_a_login_shell_that_hangs_is_killed_with_its_command(lab: Labs) -> None:
    """It would run the killing command no more than the first: sshd itself has to end it."""
    here = lab(1)
    host = account(here, "hanging", "#!/bin/sh\nsleep 1000\nexec /bin/sh \"$@\"\n")
    heard, settings = Heard(), Settings(run="x")
    await done(Flat([host], Job("echo hi", timeout=0.5), settings, heard))
    assert heard.how[0].outcome == Outcome.TIMED_OUT and heard.how[0].reason.endswith("and was killed")
    await until(lambda: not any("sleep 1000" in title for title in here.processes(here.hosts[0]).values()))
    heard = Heard()
    task = asyncio.create_task(Flat([host], Job("echo hi"), settings, heard).run())
    await until(lambda: any("sleep 1000" in title for title in here.processes(here.hosts[0]).values()))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 20)
    assert heard.how == {}
    await until(lambda: not any("sleep 1000" in title for title in here.processes(here.hosts[0]).values()))


async def test_the_output_of_a_login_that_prints_pages_is_as_with_ssh(lab: Labs) -> None:
    here = lab(1)
    relay = replace(account(here, "relay", "/bin/sh"), user=here.hosts[0].user)
    host = account(here, "wordy", "#!/bin/sh\nseq 20000\necho beware >&2\nexec /bin/sh \"$@\"\n")
    said = b"".join(b"%d\n" % i for i in range(1, 20001)) + b"out\n"
    settings = Settings(run="x")
    for i, hosts in ((0, [host]), (1, [relay, host])):
        heard, job = Heard(), Job("echo out; exit 3", connect_timeout=10.0)
        await done(Relayed(hosts, i, job, settings, heard, relay_key=here.key.read_text()) if i
                   else Flat(hosts, job, settings, heard))
        assert (heard.how[i], heard.out[i, OUT], heard.out[i, ERR]) == (Ended(Outcome.FAILED, 3), said, b"beware\n")


@pytest.mark.parametrize("relay", [False, True], ids=["at the root", "at a relay"])
async def test_a_login_that_leads_to_no_agent_has_a_remedy(lab: Labs, relay: bool) -> None:
    here = lab(1)
    first = replace(account(here, "first", "/bin/sh"), user=here.hosts[0].user)
    hosts = [account(here, "nologin", "/usr/sbin/nologin"), account(here, "false", "/bin/false"),
             account(here, "wordy", "#!/bin/sh\nyes welcome\n")]
    async with session([first, *hosts], [None, *[0 if relay else None] * 3], connect_timeout=20.0,
                       relay_key=here.key.read_text()) as up:
        reasons = [up.down[machine][1] for machine in (1, 2, 3)]
        assert {up.down[machine][0] for machine in (1, 2, 3)} == {Outcome.FAILED}, reasons
    assert all("its login shell ran nothing (exit 1" in reason and "chsh" in reason for reason in reasons[:2])
    assert "not available" in reasons[0]
    assert "its login printed 64 KiB" in reasons[2] and "[ -t 1 ]" in reasons[2]
