"""`fanout broker`: tenants and the audit log, on a store that nobody serves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from fanout.cli.main import main


@pytest.fixture
def broker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.setenv("FANOUT_BROKER_STORE", f"sqlite:///{tmp_path}/broker.db")

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(main, ["broker", *arguments])

    return run


def test_tenants_are_added_listed_given_new_tokens_and_disabled(broker: object) -> None:
    assert callable(broker)
    assert broker("migrate").stdout.endswith("is up to date\n")
    options = ("--machines", "5", "--ttl", "2h", "--type", "a", "--type", "b", "--region", "c", "--cost-per-day", "9.5")
    token = broker("tenant", "add", "ada", *options).stdout.strip()
    assert token.startswith("fanout_")
    again = broker("tenant", "add", "ada", "--machines", "1")
    assert again.exit_code == 2 and "there is a tenant ada already" in again.stderr
    assert broker("tenant", "list").stdout == (
        "ada                  0/5 machines, ttl 2h00m, types a, b, regions c, $0.00/$9.50 a day\n"
    )
    assert broker("tenant", "token", "ada").stdout.strip() != token
    assert "ada is disabled" in broker("tenant", "disable", "ada").stdout
    [row] = json.loads(broker("tenant", "list", "--json").stdout)
    assert row["disabled"] and row["types"] == ["a", "b"] and row["cost_per_day"] == 9.5
    entries = [json.loads(line) for line in broker("audit", "--json").stdout.splitlines()]
    assert [entry["action"] for entry in entries] == ["tenant.added", "tenant.token", "tenant.disabled"]
    assert {entry["actor"] for entry in entries} == {"operator"}
    assert "tenant.disabled    operator ada" in broker("audit", "--tenant", "ada").stdout
    assert broker("audit", "--tenant", "bob").stdout == ""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("tenant", "disable", "eve"), "there is no tenant eve"),
        (("tenant", "add", "Eve", "--machines", "1"), "cannot name a tenant"),
        (("migrate", "--store", "mysql://x"), "a store is sqlite"),
        (("serve", "--offer", "x=lab", "--listen", "here"), "write HOST:PORT"),
    ],
)
def test_what_makes_no_sense_is_a_usage_error(broker: object, arguments: tuple[str, ...], words: str) -> None:
    assert callable(broker)
    done = broker(*arguments)
    assert done.exit_code == 2 and words in done.stderr
