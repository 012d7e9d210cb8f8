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


def test_quotas_are_changed_as_named_and_the_others_stay(broker: object) -> None:
    assert callable(broker)
    limits = ("--machines", "5", "--ttl", "2h", "--type", "a", "--type", "b", "--cost-per-day", "9.5")
    broker("tenant", "add", "ada", *limits)

    def shown(*options: str) -> str:
        done = broker("tenant", "set", "ada", *options)
        assert done.exit_code == 0, done.stderr
        return str(broker("tenant", "list").stdout).split(None, 1)[1].strip()

    assert shown("--machines", "7") == "0/7 machines, ttl 2h00m, types a, b, $0.00/$9.50 a day"
    assert shown("--type", "c", "--ttl", "1h") == "0/7 machines, ttl 1h00m, types c, $0.00/$9.50 a day"
    cheap = "0/7 machines, ttl 1h00m, types c, regions r, $0.00/$0.00 a day"
    assert shown("--cost-per-day", "0", "--region", "r") == cheap
    assert shown("--all-types", "--all-regions", "--no-cost-limit") == "0/7 machines, ttl 1h00m"
    entries = [json.loads(line) for line in broker("audit", "--json").stdout.splitlines()]
    assert [(entry["action"], entry.get("machines"), entry.get("types")) for entry in entries] == [
        ("tenant.added", None, None), ("tenant.changed", [5, 7], None), ("tenant.changed", None, [["a", "b"], ["c"]]),
        ("tenant.changed", None, None), ("tenant.changed", None, [["c"], []])]


@pytest.mark.parametrize("command", [
    ("audit",), ("tenant", "list"), ("tenant", "set", "ada", "--machines", "1"), ("tenant", "token", "ada"),
    ("tenant", "disable", "ada")], ids=" ".join)
def test_a_store_that_is_not_there_is_told_and_not_made(
    broker: object, command: tuple[str, ...], tmp_path: Path
) -> None:
    assert callable(broker)
    for folder in "", "/new":
        done = broker(*command, "--store", f"sqlite:///{tmp_path}{folder}/typo.db")
        assert done.exit_code == 2 and "there is no broker's store at sqlite:///" in done.stderr
        assert "typo.db" in done.stderr and "FANOUT_BROKER_STORE" in done.stderr
    assert not list(tmp_path.iterdir())
    (tmp_path / "empty.db").touch(0o600)
    done = broker(*command, "--store", f"sqlite:///{tmp_path}/empty.db")
    assert done.exit_code == 2 and "there is no broker's store at" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("tenant", "disable", "eve"), "there is no tenant eve"),
        (("tenant", "add", "Eve", "--machines", "1"), "cannot name a tenant"),
        (("tenant", "set", "eve", "--machines", "1"), "there is no tenant eve"),
        (("tenant", "set", "eve"), "what is to change"),
        (("tenant", "set", "eve", "--type", "a", "--all-types"), "give one of them"),
        (("migrate", "--store", "mysql://x"), "a store is sqlite"),
        (("serve", "--offer", "x=lab", "--listen", "here"), "write HOST:PORT"),
    ],
)
def test_what_makes_no_sense_is_a_usage_error(broker: object, arguments: tuple[str, ...], words: str) -> None:
    assert callable(broker)
    broker("migrate")
    done = broker(*arguments)
    assert done.exit_code == 2 and words in done.stderr
