"""A broker that is killed leaks nothing, and a run on its machines does not notice."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from fanout.broker import tenants
from fanout.broker.quotas import Quota
from fanout.broker.store import Store
from tests.agent.parent import gone
from tests.broker.process import Process
from tests.broker.serving import Counting, served
from tests.patience import eventually

MAKER = """#!/bin/sh
# Each machine is a file in $MADE, named after the run; the last comes when there is a file `go`.
run=$(printf '%s' "$FANOUT_REQUEST" | sed 's/.*"run": "\\([^"]*\\)".*/\\1/')
case $1 in
up)
    echo $$ > "$MADE/../pid"
    : > "$MADE/$run-1"
    echo "10.0.0.1 name=m1"
    while [ ! -e "$MADE/../go" ]; do sleep 0.05; done
    : > "$MADE/$run-2"
    echo "10.0.0.2 name=m2" ;;
down)
    cat > "$MADE/../down"
    rm -f "$MADE/$run"-* ;;
esac
"""


class Place:
    def __init__(self, folder: Path, store_url: str) -> None:
        self.folder, self.made, self._url = folder, folder / "made", store_url
        self.made.mkdir()
        self.maker = folder / "maker.sh"
        self.maker.write_text(MAKER)
        self.maker.chmod(0o755)
        store = Store(store_url)
        store.migrate()
        with store.begin() as session:
            self.token = tenants.add(session, "ada", Quota(10, 3600.0), time.time())
        store.close()

    def broker(self) -> Process:
        return Process(self._url, "--offer", f"it=exec:{self.maker}", MADE=str(self.made))


@pytest.fixture
def place(tmp_path: Path, store_url: str) -> Place:
    return Place(tmp_path, store_url)


def test_a_broker_killed_while_it_made_machines_removes_them_when_it_is_back(place: Place) -> None:
    with place.broker() as first:
        lease = first.client(place.token).ask(2).json()["id"]
        eventually(lambda: list(place.made.iterdir()))
        first.end(signal.SIGKILL)
    up = int((place.folder / "pid").read_text())
    assert not gone(up, 0.0), "the program lives on, and could make more"
    with place.broker() as second:
        ended = second.client(place.token).until(lease, "ended")
        assert ended["cause"] == "interrupted" and "ask again" in ended["reason"]
        assert gone(up) and not list(place.made.iterdir())


def test_a_lease_that_is_ready_outlives_its_broker_and_is_released_by_the_next(place: Place) -> None:
    (place.folder / "go").touch()
    with place.broker() as first:
        ready = first.client(place.token).ready(2)
        first.end(signal.SIGKILL)
    with place.broker() as second:
        ada = second.client(place.token)
        again = ada.lease(ready["id"])
        assert again["state"] == "ready" and again["hosts"] == ready["hosts"]
        assert again["expires_at"] == ready["expires_at"] and again["idle_at"] >= ready["idle_at"]
        assert ada.post(f"/v1/leases/{ready['id']}/heartbeat").json()["state"] == "ready"
        ada.delete(f"/v1/leases/{ready['id']}")
        ada.until(ready["id"], "ended")
        assert not list(place.made.iterdir())
        assert (place.folder / "down").read_text() == "10.0.0.1 name=m1\n10.0.0.2 name=m2\n"


def test_a_broker_that_is_told_to_end_removes_what_it_was_making(tmp_path: Path, counting: type[Counting]) -> None:
    url = f"sqlite:///{tmp_path}/broker.db"
    with served(url, "stuck=counting:stuck", leave=True) as broker:
        token = broker.token()
        lease = broker.client(token).ask(2).json()["id"]
        eventually(lambda: counting.there)
    assert not counting.there
    with served(url) as broker:
        assert broker.client(token).until(lease, "ended")["cause"] == "interrupted"


@pytest.mark.parametrize("broken", [False, True], ids=["at once", "when the fleet works again"])
def test_what_a_broker_could_not_release_the_next_one_does(
    tmp_path: Path, counting: type[Counting], broken: bool
) -> None:
    url = f"sqlite:///{tmp_path}/broker.db"
    with served(url, leave=True) as broker:
        token = broker.token()
        ada = broker.client(token)
        lease = ada.ready(2)["id"]
        counting.broken = True
        ada.delete(f"/v1/leases/{lease}")
        eventually(lambda: "lease.not-released" in ada.audit())
    assert counting.there
    counting.broken = broken
    with served(url) as broker:
        ada = broker.client(token)
        if broken:
            eventually(lambda: ada.audit().count("lease.not-released") > 1)
            counting.broken = False
        assert ada.until(lease, "ended")["cause"] == "released"
