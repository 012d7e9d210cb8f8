"""`ship`: what arrives is what was sent, or the machine where it could not be put is named."""

import os
import signal
from pathlib import Path

import pytest

from fanout.agent.core.blocks import BLOCK
from fanout.errors import UsageError
from fanout.root.outcomes import RunOutcome
from fanout.root.shipping import Source, _Sending
from tests.scenario import play as playing
from tests.scenario.conftest import Passes
from tests.scenario.play import Play, Recorder, write


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not that of whoever runs the tests."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


TREE: list[dict[str, int]] = [{"machines": 3, "relays": 0}, {"machines": 7, "relays": 2, "depth": 3}]


@pytest.mark.parametrize("shape", TREE)
async def test_a_file_arrives_everywhere_with_its_bytes_and_mode(passes: Passes, tmp_path: Path, shape) -> None:
    source = tmp_path / "node"
    source.write_bytes(b"#!/bin/sh\necho ran\n" + bytes(range(256)) * 12_000)
    source.chmod(0o755)
    await passes(f"""
        import hashlib
        want = hashlib.sha256(open({str(source)!r}, "rb").read()).hexdigest()
        node = await fleet.ship({str(source)!r})
        sums = await fleet.run(f"sha256sum {{node}}; stat -c %a {{node}}")
        assert sums.stdout.split() == [want, node, "755"], sums.stdout
        assert (await fleet.ship({str(source)!r}, "deep/er/copy-{{id}}", mode=0o600)) == "./deep/er/copy-{{id}}"
        assert (await fleet[1].run("stat -c %a deep/er/copy-1")).stdout == "600\\n"
        assert (await fleet.run("ls; ls deep/er | wc -l")).stdout == "deep\\nnode\\n1\\n"
    """, **shape)


async def test_a_folder_arrives_with_links_and_odd_names_and_replaces_the_old(
        passes: Passes, tmp_path: Path) -> None:
    source = tmp_path / "src"
    (source / "sub dir").mkdir(parents=True)
    (source / "sub dir" / "ünï 'x'\n").write_text("odd")
    (source / "empty").touch()
    (source / "link").symlink_to("sub dir")
    for number in range(300):
        (source / f"f{number}").write_text(str(number))
    # One name has a newline, so `wc` counts one more.
    await passes(f"""
        for _ in range(2):
            there = await fleet.ship({str(source)!r})
            found = await fleet.run(f"cd {{there}} && find . -type f | wc -l; cat link/*; cat f299; ls -a | head -3")
            assert found.stdout == "303\\nodd299.\\n..\\nempty\\n", found.stdout
            await fleet.run("touch src/extra")
    """, machines=4, relays=1)


async def test_nothing_is_a_file_too_and_four_gigabytes_of_holes_are_little(passes: Passes, tmp_path: Path) -> None:
    (tmp_path / "none").touch()
    with (tmp_path / "sparse").open("wb") as file:
        file.seek(4 << 30)
        file.write(b"end")
    await passes(f"""
        await fleet.ship({str(tmp_path / "none")!r})
        await fleet.ship({str(tmp_path / "sparse")!r})
        told = await fleet.run("stat -c %s none sparse; du -k sparse | cut -f1; tail -c 3 sparse")
        *size, end = told.stdout.split()
        assert size[:2] == ["0", str((4 << 30) + 3)] and end == "end", told.stdout
        assert int(size[2]) < 1_000, size
        assert fleet._context.session.shipping.sent < 100_000
    """, machines=3, relays=1)


async def test_ten_thousand_small_files_arrive(passes: Passes, tmp_path: Path) -> None:
    source = tmp_path / "many"
    for number in range(10_000):
        if not number % 100:
            (source / f"d{number // 100}").mkdir(parents=True)
        (source / f"d{number // 100}" / str(number)).write_text(f"{number}\n")
    await passes(f"""
        await fleet.ship({str(source)!r})
        told = await fleet.run("find many -type f | wc -l; cat many/*/* | sort -n | md5sum; du -sk many | cut -f1")
        assert told.stdout.split()[0] == "10000", told.stdout
        import hashlib
        want = hashlib.md5("".join(f"{{n}}\\n" for n in range(10_000)).encode()).hexdigest()
        assert told.stdout.split()[1] == want
    """, machines=1)


async def test_what_a_machine_has_it_does_not_get_again(passes: Passes, tmp_path: Path) -> None:
    source = tmp_path / "file"
    source.write_bytes(os.urandom(3 << 20))
    await passes(f"""
        sent = []
        for turn, cache in enumerate((True, True, False)):
            await fleet.ship({str(source)!r}, f"there-{{turn}}", cache=cache)
            sent.append(fleet._context.session.shipping.sent)
        assert sent[0] > 3 << 20 and sent[1] == sent[0] and sent[2] > 2 * (3 << 20), sent
        assert len(set((await fleet.run("sha256sum < there-0; sha256sum < there-1; sha256sum < there-2")
                        ).stdout.split())) == 2
    """, machines=3, relays=1)
    (kept,) = (Path(os.environ["XDG_CACHE_HOME"]) / "fanout" / "blobs").iterdir()
    assert kept.stat().st_mode & 0o777 == 0o600 and kept.parent.stat().st_mode & 0o777 == 0o700


async def test_a_link_that_leads_out_of_the_folder_is_said_before_anything_is_sent(
        play: Play, tmp_path: Path) -> None:
    source = tmp_path / "src"
    source.mkdir()
    (source / "out").symlink_to("/etc/passwd")
    result, _ = await play(f"await fleet.ship({str(source)!r})", machines=2)
    assert "leads out of the folder, to /etc/passwd" in result.reason


async def test_where_it_cannot_be_put_is_said_by_name_and_the_others_have_it(play: Play, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    result, _ = await play(f"""
        await fleet[1].run("mkdir -p there/file")
        try:
            await fleet.ship({str(tmp_path / "file")!r}, "there/file")
        finally:
            assert (await fleet.run("cat there/file", check=False)).failed.names == ["local-1"]
    """, machines=3)
    assert result.outcome is RunOutcome.FAILED
    assert "failed on 1 of 3 machines" in result.reason
    assert "local-1" in result.reason
    assert [failure.machine for failure in result.failures] == ["local-1"]


@pytest.mark.parametrize("path, why", [("/nowhere/at/all", "No such file"), ("/dev", "no file")])
async def test_what_cannot_be_read_is_said_before_anything_is_sent(play: Play, path: str, why: str) -> None:
    result, _ = await play(f"await fleet.ship({path!r})", machines=2)
    assert result.outcome is not RunOutcome.PASSED
    assert f"cannot ship {path}" in result.reason
    assert why in result.reason


async def test_a_relay_that_dies_in_the_middle_costs_nobody_else_the_file(passes: Passes, tmp_path: Path) -> None:
    source = tmp_path / "big"
    source.write_bytes(bytes(range(256)) * (40 << 12))
    await passes(f"""
        import asyncio, hashlib, os, signal
        pid = int((await fleet[0].run("echo $PPID")).stdout)
        fleet.may_lose(fleet[0])
        sending = asyncio.ensure_future(fleet.ship({str(source)!r}))
        await asyncio.sleep(0.05)
        os.kill(pid, signal.SIGKILL)
        await asyncio.wait([sending])
        others = fleet[1:]
        assert "local-0" in str(sending.exception()) and "local-1" not in str(sending.exception())
        want = hashlib.sha256(open({str(source)!r}, "rb").read()).hexdigest()
        assert (await others.run("sha256sum < big")).stdout.split()[0] == want
    """, machines=6, relays=2)


async def test_a_block_that_comes_damaged_or_was_damaged_on_a_disk_is_fetched_again(
        passes: Passes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "file"
    source.write_bytes(os.urandom(3 << 20))
    damaged: list[int] = []
    real = _Sending.block

    def block(self: _Sending, offset: int) -> bytes:
        good = real(self, offset)
        if offset != 20 * BLOCK or len(damaged) == 2:
            return good
        damaged.append(offset)
        return good[:-1] + bytes([good[-1] ^ 1])

    monkeypatch.setattr(_Sending, "block", block)
    await passes(f"""
        import hashlib
        from pathlib import Path
        want = hashlib.sha256(2 * Path({str(source)!r}).read_bytes()).hexdigest()
        await fleet.ship({str(source)!r}, "first")
        (blob,) = Path({str(tmp_path)!r}, "cache/fanout/blobs").iterdir()
        with blob.open("r+b") as file:
            file.seek(2 << 20)
            file.write(b"damaged on the disk")
        await fleet.ship({str(source)!r}, "again")
        assert (await fleet.run("cat first again | sha256sum")).stdout.split() == [want, "-"]
    """, machines=3, relays=1)
    assert len(damaged) == 2


async def test_a_file_that_changes_while_it_is_sent_is_said_and_nothing_of_it_is_anywhere(
        passes: Passes, tmp_path: Path) -> None:
    source = tmp_path / "file"
    source.write_bytes(os.urandom(40 << 20))
    await passes(f"""
        shipping = fleet._context.session.shipping
        sending = asyncio.ensure_future(fleet.ship({str(source)!r}, cache=False))
        while shipping.sent < 1 << 20:
            await asyncio.sleep(0)
        with open({str(source)!r}, "ab") as file:
            file.write(b"more")
        with pytest.raises(ShipFailed, match="failed on 3 of 3 machines(.|\\n)* was written to while it was shipped"):
            await sending
        assert (await fleet.run("ls -A")).stdout == ""
    """, machines=3, relays=1)


def test_a_file_that_changes_while_it_is_hashed_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "file"
    source.write_bytes(os.urandom(1 << 20))
    real = Source._read

    def read(self: Source, offset: int, size: int) -> bytes:
        if offset == 5 * BLOCK:
            with source.open("ab") as file:
                file.write(b"more")
        return real(self, offset, size)

    monkeypatch.setattr(Source, "_read", read)
    with pytest.raises(UsageError, match="it changed while it was read"):
        Source(source)


async def test_what_takes_long_tells_how_far_it_is_and_who_is_waited_for(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fanout.scenario.shipping.TELL", 0.2)
    (tmp_path / "file").write_bytes(os.urandom(1 << 20))
    pid, told = tmp_path / "pid", []

    class Waker(Recorder):
        def note(self, text: str) -> None:
            if "done on 2 of 3 machines" in text and not told:
                told.append(text)
                os.kill(int(pid.read_text()), signal.SIGCONT)

    path = write(tmp_path, f"""
        import os, signal
        from pathlib import Path
        pid = (await fleet[1].run("echo $PPID")).stdout
        Path({str(pid)!r}).write_text(pid)
        os.kill(int(pid), signal.SIGSTOP)
        await fleet.ship({str(tmp_path / "file")!r})
    """)
    result, _ = await playing.play(path, Waker())
    assert result.outcome is RunOutcome.PASSED, result.reason
    assert told[0].endswith("waiting for local-1")


async def test_paths_may_be_those_of_pathlib_and_what_is_none_is_told_before_it_is_sent(
    passes: Passes, tmp_path: Path
) -> None:
    (tmp_path / "a").write_text("content")
    await passes(f"""
        from pathlib import Path
        source = Path({str(tmp_path / "a")!r})
        assert await fleet.ship(source, Path("into/b")) == "./into/b"
        assert (await fleet.run("cat b", cwd=Path("into"))).stdout == "content"
        assert len((await fleet.fetch(Path("into/b"))).files) == len(fleet)
        for bad, said in (
            (fleet.ship(source, mode="755"), "mode='755': give permission bits as a number, such as 0o755"),
            (fleet.ship(source, to=3), "to=3: give a path"),
            (fleet.ship(3), "give the path of a file or folder"),
            (fleet.fetch(3), "pattern=3: give a path"),
            (fleet.run("true", cwd=3), "cwd=3: give a path"),
            (fleet.spawn("true", on=["x"]), "write {{'a pattern': signal"),
        ):
            with pytest.raises(UsageError, match=said):
                await bad
    """, machines=2, place=lambda name: tmp_path / "kept" / name)
