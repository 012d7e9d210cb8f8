"""`fanout exec`: what is shown, which exit code, how many relays."""

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fanout.cli.exec import relay_count
from fanout.cli.printer import Printer, end, exit_code
from fanout.errors import UsageError
from fanout.fleets.openssh import LoopbackSshd
from fanout.root.oneshot import Ended
from fanout.root.outcomes import Outcome
from tests.patience import eventually
from tests.sshd import home_of, running


def show(form: str, errors_only: bool = False) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of a run on four machines: two well, one exit 3, one unreachable."""
    out, err = io.BytesIO(), io.BytesIO()
    printer = Printer(["n1", "n2", "n3", "n4"], form, errors_only=errors_only, prefix=True, quiet=False,
                      out=out, err=err)
    for i, code in enumerate((0, 0, 3)):
        printer.output(i, 1, b"hel")
        printer.output(i, 1, b"lo\nlast")
        printer.ended(i, Ended(Outcome.FAILED if code else Outcome.OK, code))
    printer.ended(3, Ended(Outcome.UNREACHABLE, None, "no route"))
    printer.close()
    return printer.code, out.getvalue().decode(), err.getvalue().decode()


def test_each_form_shows_what_it_promises_and_the_worst_code_counts() -> None:
    code, out, err = show("stream")
    assert (code, out) == (255, "".join(f"n{i}: hello\nn{i}: last\n" for i in (1, 2, 3)))
    assert err == "fanout: n3: exit 3\nfanout: n4: unreachable: no route\n"
    code, out, err = show("fold")
    assert out == "n[1-2] (2):\n  hello\n  last\nn3 [exit 3]:\n  hello\n  last\n"
    assert err == "fanout: n4: unreachable: no route\n"
    assert show("stream-errors", errors_only=True)[1] == "n3: hello\nn3: last\n"
    records = json.loads(show("json")[1])
    assert [record["outcome"] for record in records] == ["ok", "ok", "failed", "unreachable"]
    assert records[2]["stdout"] == "hello\nlast" and records[2]["exit"] == 3


def cut_short(form: str) -> tuple[int, str, str]:
    """The same of two machines that printed: one ran out of time, one was still at it when Ctrl-C came."""
    out, err = io.BytesIO(), io.BytesIO()
    printer = Printer(["n1", "n2", "n3"], form, errors_only=False, prefix=True, quiet=False, out=out, err=err)
    for i in (0, 1):
        printer.output(i, 1, b"so far\n")
    printer.ended(0, Ended(Outcome.TIMED_OUT, None, "too long"))
    printer.close(interrupted=True)
    return printer.code, out.getvalue().decode(), err.getvalue().decode()


def test_what_was_printed_before_the_time_was_over_or_ctrl_c_came_is_shown() -> None:
    code, out, err = cut_short("fold")
    assert (code, out) == (124, "n1 [timed out]: so far\nn2 [interrupted]: so far\n")
    assert err == ("fanout: n1: timed out: too long\n"
                   "fanout: interrupted; the command was killed on 2 of 3 machines\n")
    assert "n2 [interrupted]" in cut_short("diff")[1]
    records = json.loads(cut_short("json")[1])
    assert [(record["name"], record["outcome"], record["stdout"]) for record in records] == [
        ("n1", "timed out", "so far\n"), ("n2", "interrupted", "so far\n"), ("n3", "interrupted", "")]


@pytest.mark.parametrize("form", ["stream", "fold", "json"])
def test_a_full_disk_here_is_no_fault_of_the_machines(form: str) -> None:
    with open("/dev/full", "wb") as full:
        err = io.BytesIO()
        printer = Printer(["n1", "n2"], form, errors_only=False, prefix=True, quiet=False, out=full, err=err)
        for i in (0, 1):
            printer.output(i, 1, b"some\n")
            printer.ended(i, Ended(Outcome.OK, 0))
        printer.close()
    assert printer.code == 1
    assert err.getvalue() == (b"fanout: error: standard output cannot be written, the rest of it is lost:"
                              b" No space left on device\n")


def test_exit_codes_are_those_of_the_help() -> None:
    assert [exit_code(how) for how in (
        Ended(Outcome.OK, 0), Ended(Outcome.FAILED, 137), Ended(Outcome.TIMED_OUT), Ended(Outcome.LOST))
    ] == [0, 137, 124, 255]
    assert end(Ended(Outcome.FAILED, 255)) != end(Ended(Outcome.LOST, None, "gone"))


def test_no_relay_has_more_machines_than_its_width() -> None:
    assert [relay_count(None, None, n) for n in (256, 257)] == [0, 5]
    assert (relay_count(None, 9, 300), relay_count(4, 9, 40), relay_count(0, 9, 40)) == (30, 4, 0)
    for relays, width in ((4, 8), (41, None)):
        with pytest.raises(UsageError, match=f"--relays {relays}"):
            relay_count(relays, width, 40)


@pytest.mark.sshd
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_from_the_command_line_with_input_and_with_ctrl_c(
    sshd: LoopbackSshd, tmp_path: Path, number: signal.Signals
) -> None:
    hosts = home_of(tmp_path, sshd)
    argv = [sys.executable, "-m", "fanout.cli", "exec", "-w", f"@{hosts}"]
    environment = {**os.environ, "HOME": str(tmp_path)}
    done = subprocess.run([*argv, "-b", "--stdin", "--", "cat; exit 4"], input=b"some\nlines\n", capture_output=True,
                          env=environment, timeout=60)
    assert (done.returncode, done.stdout) == (4, b"n[1-3] (3) [exit 4]:\n  some\n  lines\n"), done.stderr
    done = subprocess.run([*argv, "-N", "-x", "n[2-3]", "echo", "-n", "-x", "$HOME", "-b"], capture_output=True,
                          env=environment, timeout=60)
    assert (done.returncode, done.stdout.split()[0]) == (0, b"-x"), done.stderr  # what follows COMMAND is its own
    done = subprocess.run([*argv, "--", b"echo \xff"], capture_output=True, env=environment, timeout=60)
    assert (done.returncode, done.stderr) == (2, b"fanout: error: the command is not UTF-8: 'echo \\udcff'\n")
    with subprocess.Popen([*argv, "--", "echo up; exec sleep 7373"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          env=environment) as process:
        assert process.stdout is not None
        assert sorted(process.stdout.readline() for _ in range(3)) == [b"n1: up\n", b"n2: up\n", b"n3: up\n"]
        process.send_signal(number)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130 and b"interrupted" in err
    eventually(lambda: not running(sshd, "7373"))


@pytest.mark.sshd
def test_a_broken_host_key_is_named_with_its_line_and_harms_no_other(sshd: LoopbackSshd, tmp_path: Path) -> None:
    hosts = home_of(tmp_path, sshd)
    kind, key = sshd.host_keys[0].split()
    known = tmp_path / ".ssh/known_hosts"
    known.write_text(f"# mine\n[127.1.0.1]:{sshd.port} {kind} {key[:30]}!\n[127.1.0.1]:{sshd.port}\n|1|x {kind} {key}\n"
                     f"[127.1.0.2]:{sshd.port} {kind} {key[:40]}\n[127.1.0.2]:{sshd.port} {kind} {key}\n")
    argv = [sys.executable, "-m", "fanout.cli", "exec", "-w", f"@{hosts}", "-x", "n3"]
    environment = {**os.environ, "HOME": str(tmp_path)}
    for config in ("", "Include nothing\n"):  # asyncssh reads the files itself in the second case
        (tmp_path / ".ssh/config").write_text(config)
        done = subprocess.run([*argv, "true"], capture_output=True, text=True, env=environment, timeout=60)
        assert done.returncode == 255 and "n1: host key mismatch: " in done.stderr.replace("n[1-2] (2)", "n1")
        if config:
            assert "a line of known_hosts is to be corrected, or removed: " in done.stderr
        else:
            assert "its host key in ~/.ssh/known_hosts, line 2, is no whole key: remove that line" in done.stderr
            assert "n2" not in done.stderr
        assert "auth failed" not in done.stderr
    hosts.write_text(f"n1\nroot@127.1.0.2 host_key='{kind} {key[:40]}'\n")
    done = subprocess.run([*argv, "true"], capture_output=True, text=True, env=environment, timeout=60)
    assert (done.returncode, done.stderr) == (2, (
        f"fanout: error: {hosts}, line 2: host_key={kind} {key[:40]} is cut, or not of that type: copy it again, as"
        " ssh-keyscan shows it\n"))


@pytest.mark.sshd
@pytest.mark.parametrize("then", ["exec sleep 8181", "while echo more 8181; do :; done"], ids=["silent", "talking"])
def test_when_nobody_reads_the_lines_any_more_the_command_is_ended_everywhere(
    sshd: LoopbackSshd, tmp_path: Path, then: str
) -> None:
    """As `fanout exec ... | head -1`; standard error may be the same pipe."""
    argv = [sys.executable, "-m", "fanout.cli", "exec", "-w", f"@{home_of(tmp_path, sshd)}", "--", f"echo up; {then}"]
    for both in (False, True):
        with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT if both else subprocess.PIPE,
                              env={**os.environ, "HOME": str(tmp_path)}) as process:
            assert process.stdout is not None
            assert process.stdout.readline().endswith(b": up\n")
            process.stdout.close()
            try:
                assert process.wait(30) == 141
            finally:
                process.kill()
            if process.stderr is not None:
                assert process.stderr.read() == (
                    b"fanout: nobody reads the output any more; the command was killed on 3 of 3 machines\n")
    assert not [pid for pid in sshd.processes() if b"8181" in Path(f"/proc/{pid}/cmdline").read_bytes()]


@pytest.mark.sshd
def test_what_is_shown_at_the_end_is_waited_for_though_nobody_reads_it(sshd: LoopbackSshd, tmp_path: Path) -> None:
    """A reader that goes early (`| less`, and q) ends no command whose output it has not seen begin."""
    argv = [sys.executable, "-m", "fanout.cli", "exec", "-w", f"@{home_of(tmp_path, sshd)}", "-b", "--",
            f"echo $SSH_CONNECTION >> {tmp_path}/ran"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          env={**os.environ, "HOME": str(tmp_path)}) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert (process.stderr.read(), process.wait(30)) == (b"", 0)
    assert len((tmp_path / "ran").read_text().splitlines()) == 3
