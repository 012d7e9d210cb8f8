"""`fanout broker`: the service that leases machines, and its tenants.  Only its own commands import what it needs."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fanout.cli.types import duration
from fanout.durations import show
from fanout.errors import UsageError

if TYPE_CHECKING:
    from fanout.broker.quotas import Quota
    from fanout.broker.store import Store

ADDRESS = "127.0.0.1:8642"

store_option = click.option(
    "--store", metavar="URL", envvar="FANOUT_BROKER_STORE", show_envvar=True,
    help="sqlite:////PATH or postgresql://...; by default broker.db below ~/.local/state/fanout.",
)  # fmt: skip


@click.group("broker", short_help="Lease machines to those who have no rights in the cloud.")
def command() -> None:
    """A service that alone has the rights to make machines, and leases them to tenants under quotas.

    \b
    A tenant, and a broker that leases hosts of a lab:
      fanout broker tenant add ada --machines 20 --ttl 2h > ada.token
      fanout broker serve --offer lab=lab
    A run on machines of the broker:
      fanout run scenarios/gossip.py --fleet broker:http://127.0.0.1:8642,token=ada.token -n 20

    A store's URL with a password belongs into FANOUT_BROKER_STORE, where `ps` does not show it.
    """


@command.command()
@store_option
@click.option("--offer", "offers", metavar="NAME=FLEET", multiple=True,
              help="What can be leased, such as small=exec:./small.sh; may be repeated.")  # fmt: skip
@click.option("--offers", "files", metavar="FILE", multiple=True, type=click.Path(path_type=Path),
              help="A TOML file of offers, with prices, types and regions.")  # fmt: skip
@click.option("--listen", metavar="HOST:PORT", default=ADDRESS, show_default=True)
@click.option("--tls-cert", type=click.Path(path_type=Path), metavar="FILE", help="The certificate and its chain.")
@click.option("--tls-key", type=click.Path(path_type=Path), metavar="FILE", help="Its private key.")
@click.option("--insecure", is_flag=True, help="Plain HTTP beyond loopback, behind a proxy that speaks TLS.")
@click.option("--idle", metavar="DURATION", callback=duration, default="2m", show_default=True,
              help="A lease ends when its client was silent for so long.")  # fmt: skip
@click.option("--keep", metavar="DURATION", callback=duration, default="90d", show_default=True,
              help="How long ended leases and the audit log are kept.")  # fmt: skip
def serve(
    store: str | None, offers: tuple[str, ...], files: tuple[Path, ...], listen: str, tls_cert: Path | None,
    tls_key: Path | None, insecure: bool, idle: float, keep: float,
) -> None:  # fmt: skip
    """Serve until it is told to end (INT or TERM).  Leases that are ready stay, for the next start to look after."""
    with extra():
        from fanout.broker.offers import by_name, from_file, from_text
        from fanout.broker.quotas import DAY
        from fanout.broker.server import Listen, serve
        from fanout.broker.service import Broker
    if keep < DAY:
        raise UsageError("--keep is a day or more: what a lease has cost counts for so long")
    host, port = _address(listen)
    place = Listen(host, port, tls_cert, tls_key, insecure)
    wanted = by_name([*map(from_text, offers), *(offer for path in files for offer in from_file(path))])
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    for noisy in ("alembic", "uvicorn.error"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    with opened(store) as opened_store, opened_store.serving():
        opened_store.migrate()
        complete = _completed(wanted)
        broker = Broker(opened_store, complete, idle=idle, keep=keep)
        serve(broker, place, lambda url: click.echo(f"listening on {url}"))


@command.command()
@store_option
def migrate(store: str | None) -> None:
    """Bring the store to this version; `serve` does it too."""
    with opened(store) as opened_store:
        opened_store.migrate()
        click.echo(f"{opened_store.name} is up to date")


@command.group(short_help="Who may lease machines.")
def tenant() -> None:
    """Who may lease machines, and how many."""


def quotas(new: bool) -> Callable[[click.decorators.FC], click.decorators.FC]:
    """The options that name quotas: of a tenant that is `new`, or what changes for one that is there."""

    def decorate(function: click.decorators.FC) -> click.decorators.FC:
        by_default = "; by default {}" if new else ""
        ttl: dict[str, Any] = {"default": "4h", "show_default": True} if new else {}
        for option in (
            click.option("--cost-per-day", type=click.FloatRange(min=0), metavar="DOLLARS",
                         help=f"In any 24 hours, open leases counted in full{by_default.format('no limit')}."),
            click.option("--region", "regions", metavar="REGION", multiple=True,
                         help=f"An allowed region{by_default.format('all are')}."),
            click.option("--type", "types", metavar="TYPE", multiple=True,
                         help=f"An allowed instance type{by_default.format('all are')}."),
            click.option("--ttl", metavar="DURATION", callback=duration, help="The longest life of a lease.", **ttl),
            click.option("--machines", type=click.IntRange(min=1), metavar="N", required=new,
                         help="At once, over all leases."),
        ):  # fmt: skip
            function = option(function)
        return function

    return decorate


@tenant.command("add")
@click.argument("name")
@store_option
@quotas(new=True)
def add_tenant(store: str | None, name: str, **limits: Any) -> None:
    """Add a tenant, and print its token: it is shown this once."""
    with extra():
        from fanout.broker import tenants
    with migrated(store, make=True) as opened_store, opened_store.begin() as session:
        token = tenants.add(session, name, _quota(**limits), time.time())
    click.echo(token)


@tenant.command("set")
@click.argument("name")
@store_option
@quotas(new=False)
@click.option("--all-types", is_flag=True, help="Any type is allowed again.")
@click.option("--all-regions", is_flag=True, help="Any region is allowed again.")
@click.option("--no-cost-limit", is_flag=True, help="No limit of the cost any more.")
def set_tenant(
    store: str | None, name: str, all_types: bool, all_regions: bool, no_cost_limit: bool, **limits: Any
) -> None:
    """Change quotas of a tenant; those that are not named stay as they are.

    Leases that it has go on, also where they are more than it may have from now on.
    """
    with extra():
        from fanout.broker import tenants
    wanted = {what: value for what, value in limits.items() if value not in (None, ())}
    lifted = (("types", all_types, "type"), ("regions", all_regions, "region"), ("cost_per_day", no_cost_limit, ""))
    for what, lift, option in lifted:
        if lift and what in wanted:
            raise UsageError(f"--{option or 'cost-per-day'} sets a limit that another option lifts: give one of them")
        if lift:
            wanted[what] = () if option else None
    if not wanted:
        raise UsageError("what is to change? Give --machines, --ttl, --type, --region or --cost-per-day")
    with migrated(store) as opened_store, opened_store.begin() as session:
        tenants.change(session, name, time.time(), **wanted)
    click.echo(f"{name} has new quotas: they count from its next lease on")


@tenant.command("token")
@click.argument("name")
@store_option
def new_token(store: str | None, name: str) -> None:
    """Print a new token of a tenant; its old one is worth nothing from now on.  Enables it, too."""
    with extra():
        from fanout.broker import tenants
    with migrated(store) as opened_store, opened_store.begin() as session:
        token = tenants.replace_token(session, name, time.time())
    click.echo(token)


@tenant.command("list")
@store_option
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def list_tenants(store: str | None, as_json: bool) -> None:
    """All tenants: their quotas, and what they have now."""
    with extra():
        from fanout.broker import leases, quotas, tenants
    now = time.time()
    with migrated(store) as opened_store, opened_store.begin() as session:
        found = [(each, leases.held(session, each.id, now)) for each in tenants.every(session)]
    rows = [
        {
            "name": each.name, "disabled": each.disabled, "machines": each.machines,
            "held": sum(lease.machines for lease in held if lease.there), "ttl": each.ttl, "types": each.types,
            "regions": each.regions, "cost_per_day": each.cost_per_day,
            "cost_of_last_day": round(quotas.cost(held, now - quotas.DAY), 4),
        }
        for each, held in found
    ]  # fmt: skip
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    for row in rows:
        click.echo(_line(row))
    if not rows:
        click.echo("no tenant yet: fanout broker tenant add NAME --machines N", err=True)


@tenant.command("disable")
@click.argument("name")
@store_option
def disable_tenant(store: str | None, name: str) -> None:
    """Refuse a tenant's token from now on, and end its leases."""
    with extra():
        from fanout.broker import tenants
    with migrated(store) as opened_store, opened_store.begin() as session:
        tenants.disable(session, name, time.time())
    click.echo(f"{name} is disabled; a broker that serves this store ends its leases at once")


@command.command()
@store_option
@click.option("--tenant", "name", metavar="NAME", help="Of one tenant.")
@click.option("--lease", metavar="ID", help="Of one lease.")
@click.option("--last", metavar="DURATION", callback=duration, default="24h", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="As JSON, an entry a line.")
def audit(store: str | None, name: str | None, lease: str | None, last: float, as_json: bool) -> None:
    """Who did what to which lease or tenant, the oldest first."""
    with extra():
        from fanout.broker import audit
    with migrated(store) as opened_store, opened_store.begin() as session:
        entries = audit.read(session, tenant=name, lease=lease, since=time.time() - last)
    if len(entries) == audit.MOST and not as_json:
        click.echo(f"note: the last {audit.MOST} entries; there may be more", err=True)
    for entry in entries:
        at = datetime.fromtimestamp(entry.at, UTC).isoformat(timespec="milliseconds")
        record = {"at": at, "action": entry.action, "actor": entry.actor, "tenant": entry.tenant,
                  "lease": entry.lease, "address": entry.address, **entry.detail}  # fmt: skip
        if as_json:
            click.echo(json.dumps(record))
        else:
            detail = " ".join(f"{key}={json.dumps(value)}" for key, value in entry.detail.items())
            where = " ".join(filter(None, [entry.actor, entry.address, entry.lease or entry.tenant]))
            click.echo(f"{at}  {entry.action:<18} {where}  {detail}".rstrip())


@contextlib.contextmanager
def extra() -> Iterator[None]:
    """Around imports of the broker: what they lack is told with the remedy."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise UsageError(f"the broker needs {error.name}: pip install 'fanout[broker]'") from None


@contextlib.contextmanager
def opened(url: str | None, *, make: bool = True) -> Iterator[Store]:
    with extra():
        from fanout.broker.store import Store
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state")
    found = Store(url or f"sqlite:///{state}/fanout/broker.db", make=make)
    try:
        yield found
    finally:
        found.close()


@contextlib.contextmanager
def migrated(url: str | None, *, make: bool = False) -> Iterator[Store]:
    """`make`: for the first tenant, who may be added before the broker was ever started.

    Anything else asked of a store that is not there is asked of the wrong one.
    """
    with opened(url, make=make) as found:
        if not make:
            found.need()
        found.migrate()
        yield found


def _completed(wanted: dict[str, Any]) -> dict[str, Any]:
    import asyncio

    async def ask() -> list[Any]:
        return await asyncio.gather(*(offer.completed() for offer in wanted.values()))

    return dict(zip(wanted, asyncio.run(ask()), strict=True))


def _quota(
    machines: int, ttl: float, types: tuple[str, ...], regions: tuple[str, ...], cost_per_day: float | None
) -> Quota:
    from fanout.broker.quotas import Quota

    return Quota(machines, ttl, types, regions, cost_per_day)


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise UsageError(f"--listen {text}: write HOST:PORT, such as {ADDRESS}")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _line(row: dict[str, Any]) -> str:
    parts = [f"{row['held']}/{row['machines']} machines", f"ttl {show(row['ttl'])}"]
    parts += [f"{what} {', '.join(row[what])}" for what in ("types", "regions") if row[what]]
    if row["cost_per_day"] is not None:
        parts.append(f"${row['cost_of_last_day']:.2f}/${row['cost_per_day']:.2f} a day")
    return f"{row['name']:<20} {', '.join(parts)}{'  (disabled)' if row['disabled'] else ''}"
