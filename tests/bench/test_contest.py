"""A contest on local machines: every trial real, from the options to the page."""

from __future__ import annotations

import asyncio
import html.parser
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from fanout.bench.contest import Contest, Options, Row, contest
from fanout.bench.page import page, text
from fanout.bench.peers import PEERS, Peer, Place, installed
from fanout.cli.main import main
from fanout.errors import UsageError
from fanout.fleets.base import Host
from fanout.root import constants


def test_a_small_bench_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    html_file = tmp_path / "out.html"
    done = CliRunner().invoke(main, [
        "bench", "--fleet", "local", "-n", "2,4", "--shapes", "flat,auto,1", "--repeat", "1", "--html", str(html_file),
        "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    trials = {(row["n"], row["shape"]): row["median"] for row in found["rows"]}
    assert set(trials) == {(1, "one"), (2, "flat"), (2, "1"), (4, "flat"), (4, "1")}
    for (n, shape), trial in trials.items():
        assert trial["connections"] == (1 if shape in ("1", "one") else n)
        for key in ("ready", "command", "barrier", "logs_rate", "files_rate", "connect_cpu", "descriptors"):
            assert trial[key] > 0, key
    assert trials[4, "1"]["command_messages"] < trials[4, "flat"]["command_messages"]
    assert "auto at n = 4 is flat" in found["notes"]
    assert constants.measured("local") is not None
    check_page(html_file.read_text())


def check_page(text: str) -> None:
    """Well nested, with plots, and without anything from elsewhere."""
    stack: list[str] = []
    void = {"meta", "circle", "line", "rect", "polyline"}

    class Checker(html.parser.HTMLParser):
        def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
            assert not {"src", "href"} & {name for name, _ in attributes}
            if tag not in void:
                stack.append(tag)

        def handle_endtag(self, tag: str) -> None:
            if tag not in void:
                assert stack.pop() == tag

    Checker().feed(text)
    assert not stack and text.count("<svg") >= 3 and "url(" not in text and "@import" not in text


def row(n: int, shape: str, *ready: float) -> Row:
    return Row(n, shape, (n,), [{"ready": value, "command": value, "connect_cpu": value} for value in ready])


def test_the_crossover_is_where_a_tree_begins_to_stay_ahead() -> None:
    found = Contest("lab", [
        row(10, "flat", 1), row(10, "4", 0.5), row(50, "flat", 2), row(50, "4", 3), row(100, "flat", 5, 9, 4),
        row(100, "4", 3, 90, 2), row(200, "flat", 9), row(200, "4", 4), row(200, "8", 10)])
    assert found.crossover("4") == 100
    assert found.crossover("8") is None
    assert "4: beside flat it is ready sooner from 100 machines on" in text(found)
    assert "never ready sooner" in text(found)
    check_page(page(found))


def test_what_a_budget_does_not_allow_is_left_out_and_said() -> None:
    found = asyncio.run(contest(Options(sizes=(2,), shapes=("flat",), repeat=3, budget=0.001), "b", lambda line: None))
    assert not any(row.trials for row in found.rows)
    assert "flat at n = 2: 3 of 3 trials were left out, the budget of 0 s was used up (--budget)" in found.notes


def test_a_machine_that_does_not_come_up_fails_its_trials_and_is_named() -> None:
    options = Options(fleet="hosts:127.0.0.1:1", sizes=(1,), shapes=("flat",), repeat=1, connect_timeout=1.0)
    found = asyncio.run(contest(options, "b", lambda line: None))
    assert not any(row.trials for row in found.rows)
    assert any("127.0.0.1" in note and "unreachable" in note for note in found.notes), found.notes


def test_sizes_beyond_the_fleet_are_refused_and_said() -> None:
    with pytest.raises(UsageError, match="has 2 machines"):
        asyncio.run(contest(Options(fleet="hosts:node[1-2]", sizes=(5,)), "b", lambda line: None))


def test_peers_are_given_the_host_keys_and_nothing_stays() -> None:
    hosts = [Host("a", "127.1.0.1", user="u", port=2222, key="/k", host_keys=("ssh-ed25519 AAAA",))]
    with Place(hosts) as place:
        assert "StrictHostKeyChecking yes" in place.config.read_text()
        assert (place.path / "known_hosts").read_text() == "[127.1.0.1]:2222 ssh-ed25519 AAAA\n"
        assert place.entries(1).read_text().startswith("u@127.1.0.1:2222 name=a key=/k")
    assert not place.path.exists()


def test_a_peer_that_is_not_installed_is_named_and_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    here, program = PEERS[0], Peer("p", "no-such-program", lambda place, n: [])
    module = Peer("m", here.program, lambda place, n: [], module="no_such_module")
    monkeypatch.setattr("fanout.bench.peers.PEERS", [here, program, module])
    assert installed([Host("a", "127.1.0.1")]) == ([here], ["not installed here, and not compared: p, m"])
