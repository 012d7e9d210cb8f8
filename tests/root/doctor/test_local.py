"""This machine: what would fail is found, with a remedy."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from fanout.root.doctor import finding, local
from tests.root.doctor.findings import levels


@pytest.mark.parametrize(("version", "level"), [((3, 10, 9), "fail"), ((3, 11, 0), "ok"), ((3, 13, 1), "ok")])
def test_python_at_the_root(version: tuple[int, ...], level: str) -> None:
    assert local.python(version).level == level


def test_packages_that_are_missing_or_old_fail_with_what_to_install() -> None:
    missing, old = local.packages({"msgpack": "0.6.2"}.get)
    assert missing.level == old.level == "fail"
    assert "pip install 'asyncssh>=2.18'" in missing.remedy and "0.6.2" in old.text
    assert levels(local.packages({"msgpack": "1.1.0rc1", "asyncssh": "2.18.0"}.get)) == ["ok", "ok"]


@pytest.mark.parametrize(
    ("answer", "level"),
    [((0, "OpenSSH_9.2p1 Debian-2, OpenSSL 3\n"), "ok"), ((0, "OpenSSH_6.6p1"), "warn"), ((0, "Dropbear"), "warn"),
     (None, "warn")],
)  # fmt: skip
def test_the_ssh_client(answer: tuple[int, str] | None, level: str) -> None:
    assert local.ssh_client(answer).level == level


def test_open_files_are_compared_with_the_machines() -> None:
    assert local.files(10, 1024).level == "ok"
    few = local.files(1000, 1024)
    assert few.level == "warn" and "4128" in few.text and "ulimit -Hn" in few.remedy
    assert local.files(10**6, resource.RLIM_INFINITY).level == "ok"


def test_a_folder_for_runs_that_cannot_be_written_fails(tmp_path: Path) -> None:
    assert local.folder(tmp_path / "a/b/c").level in ("ok", "warn")
    assert not (tmp_path / "a").exists()
    (tmp_path / "file").touch()
    found = local.folder(tmp_path / "file/runs")
    assert found.level == "fail" and "--run-dir" in found.remedy


def test_little_space_is_a_warning_and_none_fails() -> None:
    assert levels([finding.space("x", free) for free in (5 << 30, 500 << 20, 1 << 20)]) == ["ok", "warn", "fail"]
