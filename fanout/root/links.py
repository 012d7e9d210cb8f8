"""The root's own links: the machines it reaches itself, and what relays are told to reach the others."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

from fanout.agent.core import frames, machineset
from fanout.agent.core.bootstrap import Bootstrap, opening, stub
from fanout.agent.core.diagnose import FAILED, NO_PYTHON, remote
from fanout.agent.core.diagnose import ssh as diagnose_ssh
from fanout.agent.core.dialer import Dialer
from fanout.agent.core.link import OPEN, SILENCE, Link
from fanout.agent.silence import asking
from fanout.fleets.base import Host
from fanout.root.known_hosts import of_user
from fanout.root.ssh_options import Shared
from fanout.root.transport import CLOSING, Connection, Unreached, open_local, open_ssh

if TYPE_CHECKING:
    from fanout.root.session import Session

WRITE_SIZE = 64 << 10
SOON = 0.5  # s for a connection to end where nothing is there that could still tidy up
PROBING = 10.0  # s to ask a machine why its agent is silent
ATTEMPT = 15.0  # s for one attempt to connect: machines that are off must not hold up those behind them


class _Peer:
    """A machine that the root reaches itself: its connection, and the bytes between it and the node's link."""

    def __init__(self, links: Links, spec: dict[str, Any], call: int, seconds: float, deadline: float) -> None:
        self.links = links
        self.machine: int = spec["id"]
        self.spec = spec
        self.call = call
        self.seconds = seconds
        """That its connecting may take, waiting for its turn too: until `deadline`."""
        self.deadline = deadline
        self.began: float | None = None
        """When the first attempt to connect it was."""
        self.connection: Connection | None = None
        self.bootstrap: Bootstrap | None = Bootstrap()
        self.probe: asyncio.Task[bool] | None = None
        """Asks the machine why its agent is silent."""

    def received(self, data: bytes) -> None:
        session = self.links.session
        if self.links.peers.get(self.machine) is not self:
            return  # another connection has taken its place
        if self.probe is not None:  # the agent is heard again: what was asked is of no more use
            self.probe.cancel()
            self.probe = None
        if self.bootstrap is not None:
            try:
                rest = self.bootstrap.feed(data)
            except ValueError as error:
                outcome = NO_PYTHON if "python3 is" in str(error) else FAILED
                self.links.give_up(self, Unreached(outcome, str(error), False))
                return
            if rest is None or self.connection is None:
                return
            bootstrap, self.bootstrap = self.bootstrap, None
            if not bootstrap.attached:
                self.connection.write(self.links.session.payload.offer(bootstrap.magic, self.spec["identity"]["relay"]))
            session.node.open_child(self.machine, self.call, self.spec["identity"], session.now())
            data = rest
        if data:
            session.node.receive(self.machine, data, session.now())
        session.kick()

    def writable_again(self) -> None:
        self.links.pump(self)
        self.links.session.kick()  # a file that is being sent may go on

    def ended(self, code: int, stderr: str) -> None:
        self.links.ended(self, code, stderr)


class Links:
    def __init__(self, session: Session) -> None:
        self.session = session
        self.peers: dict[int, _Peer] = {}
        self.connections = 0
        self._dialer = Dialer(session.settings.handshakes, random.random)
        self._shared = Shared(session.settings)
        self._waiting: dict[int, _Peer] = {}
        self._redial: asyncio.TimerHandle | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._dialling: set[asyncio.Task[None]] = set()
        self._retired = [0, 0, 0, 0]
        self._shut = False
        session.node.acknowledges, session.node.starved = self.acknowledges, self.starved

    # What a machine needs to be reached.

    def spec(self, machine: int, subtree: int | None) -> dict[str, Any]:
        """How to reach a machine, and who it is.

        `subtree`: what may be below it, where an agent of the run may be on it already; None: it is new.
        """
        session = self.session
        host = session.machines[machine].host
        spec: dict[str, Any] = {
            "id": machine, "identity": session.identity(machine), "python": host.python, "local": host.local}
        if subtree is not None:
            name = f"fanout-{session.settings.run}-{machine}"
            spec["attach"] = f"{session.settings.folder}/{name}" if session.settings.folder else name
            spec["subtree"] = machineset.pack(subtree)
            spec["past"] = machineset.pack(session.topology.behind[machine])
            spec["identity"]["sweep"] = True
            spec["identity"]["replaces"] = bool(session.joined >> machine & 1)
        return spec

    def connect_body(self, specs: list[dict[str, Any]], seconds: float) -> dict[str, Any]:
        """CONNECT: what a relay needs to reach these children."""
        session, known = self.session, []
        settings = session.settings
        for spec in specs:
            known += self.address(spec, session.machines[spec["id"]].host)
        return {
            "children": specs,
            "stage0": session.payload.stage0,
            "seconds": seconds,
            "handshakes": settings.handshakes,
            "ssh": self.ssh(known),
        }

    def address(self, spec: dict[str, Any], host: Host) -> list[str]:
        """Tell a relay in `spec` where a host is; returns the lines of known_hosts that hold for it."""
        if host.local:
            return []
        address, port, user = self._shared.address(host)
        address = host.inside or address
        spec.update(host=address, port=port, user=user)
        name = address if port == 22 else f"[{address}]:{port}"
        known = [f"{name} {key}" for key in host.host_keys]
        if host.host_ca:
            known.append(f"@cert-authority {name} {host.host_ca}")
        return known or of_user().lines_for(address, port)

    def ssh(self, known: list[str]) -> dict[str, Any]:
        """What the `ssh` of a relay is told, for all machines that it is to reach."""
        settings = self.session.settings
        return {
            "kex": f"^{settings.kex}" if settings.kex else None,
            "cipher": f"^{settings.cipher}" if settings.cipher else None,
            "known_hosts": "".join(line + "\n" for line in known),
            "key": self.session.relay_key,
            "forward_agent": settings.forward_agent,
        }

    def acknowledges(self, machine: int) -> bool:
        """For the node: a machine of the root's own is there, though its agent says nothing."""
        peer = self.peers.get(machine)
        return peer is not None and peer.connection is not None and peer.connection.acknowledges()

    def starved(self, machine: int, pid: int) -> bool:
        """For the node: the agent there waits for its turn; also while that is not known yet."""
        peer = self.peers.get(machine)
        if peer is None or peer.connection is None:
            return False
        probe = peer.probe
        if probe is None:
            probe = peer.probe = asyncio.get_running_loop().create_task(self._asked(peer.connection, pid))
        if not probe.done():
            return True
        peer.probe = None
        return probe.result()

    async def _asked(self, connection: Connection, pid: int) -> bool:
        """Seldom: that an agent is starved holds for a while, and asking takes from what it lacks."""
        starved = await connection.also(asking(pid), PROBING)
        if starved:
            await asyncio.sleep(SILENCE)
        return starved

    # Connecting.

    def reach(self, spec: dict[str, Any], call: int, seconds: float) -> None:
        """Connect to a machine, with retries, within `seconds`.  UP or DOWN under `call` tells how it went."""
        machine = spec["id"]
        old = self.peers.pop(machine, None)
        if old is not None:  # the node knows that it leads nowhere any more
            self._part(old, SOON)
        self._dialer.succeeded(machine)
        deadline = self.session.now() + seconds
        self._waiting[machine] = _Peer(self, spec, call, seconds, deadline)
        self._dialer.add(machine, deadline)
        self._dial()

    def opened(self, machine: int) -> None:
        """The handshake of its link is done."""
        self._waiting.pop(machine, None)
        self._dialer.succeeded(machine)
        self._dial()

    def _dial(self) -> None:
        loop, now = asyncio.get_running_loop(), self.session.now()
        if self._redial is not None:
            self._redial.cancel()
            self._redial = None
        if self._shut:
            return
        for machine in self._dialer.start(now):
            wanted = self._waiting[machine]
            # Known from here on, not from when its task begins: it may be wanted anew, elsewhere, before that.
            peer = self.peers[machine] = _Peer(self, wanted.spec, wanted.call, wanted.seconds, wanted.deadline)
            peer.began = wanted.began = now if wanted.began is None else wanted.began
            task = loop.create_task(self._attempt(peer))
            self._dialling.add(task)
            task.add_done_callback(self._dialling.discard)
        due = self._dialer.timeout()
        if due is not None:
            self._redial = loop.call_later(max(0.01, due - now), self._dial)

    async def _attempt(self, peer: _Peer) -> None:
        """Connect and start stage 0; what follows comes by `received`."""
        if self.peers.get(peer.machine) is not peer:
            return
        host = self.session.machines[peer.machine].host
        connection: Connection
        stage0 = self.session.payload.stage0
        left = min(ATTEMPT, max(0.1, peer.deadline - self.session.now()))
        try:
            if host.local:
                connection = open_local([host.python, "-I", "-S", "-c", stub(stage0)], peer)
            else:
                command = f"exec {host.python} -I -S -c '{stub(stage0)}'"
                async with asyncio.timeout(left):
                    connection = await open_ssh(host, command, self.session.settings, peer, self._shared)
        except TimeoutError:
            self._failed(peer, Unreached("unreachable", self._silent(peer), True))
            return
        except Unreached as failure:
            self._failed(peer, failure)
            return
        self.connections += 1
        peer.connection = connection
        if self.peers.get(peer.machine) is not peer:  # it ended while the session was being opened
            await connection.close()
            return
        connection.write(opening(stage0, peer.spec.get("attach")))
        left = max(0.1, peer.deadline - self.session.now())
        asyncio.get_running_loop().call_later(left, self._overdue, peer)

    def _silent(self, peer: _Peer) -> str:
        """In words: it does not answer.  All attempts count; and others may have been before it in the queue."""
        assert peer.began is not None
        tried = self.session.now() - peer.began
        how = " within" if tried > peer.seconds - 1 else f": tried for {tried:.0f} of"
        option = " (--connect-timeout)" if peer.seconds == self.session.settings.connect_timeout else ""
        return f"it does not answer{how} {round(peer.seconds, 1):g} s{option}"

    def _overdue(self, peer: _Peer) -> None:
        link = self.session.node.children.get(peer.machine)
        if self.peers.get(peer.machine) is peer and (link is None or link.state != OPEN) and not self._shut:
            noise = peer.bootstrap.noise()[-200:].strip() if peer.bootstrap is not None else b""
            said = f": it printed {noise.decode('utf-8', 'replace')!r}" if noise else ""
            self.give_up(peer, Unreached("unreachable", f"no agent within the connect timeout{said}", False))

    def give_up(self, peer: _Peer, failure: Unreached) -> None:
        """A connection that leads to no agent.  The outcome does not wait for its closing, which may take seconds."""
        if self.peers.get(peer.machine) is not peer:
            return
        self.session.node.drop_child(peer.machine)
        self._part(peer, SOON)
        self._failed(peer, failure)

    def _failed(self, peer: _Peer, failure: Unreached) -> None:
        if self.peers.get(peer.machine) is not peer or self._shut:
            return
        del self.peers[peer.machine]
        if not self._dialer.failed(peer.machine, failure.again, self.session.now()):
            self._waiting.pop(peer.machine, None)
            self.session.node.connect_failed(
                peer.machine, peer.call, failure.outcome, failure.reason, self.session.now())
            self.session.kick()
        self._dial()

    def ended(self, peer: _Peer, code: int, stderr: str) -> None:
        """A connection is gone: before its link was open that is a failure to connect, later a loss."""
        self._part(peer)
        if self.peers.get(peer.machine) is not peer:
            return
        node = self.session.node
        link = node.children.get(peer.machine)
        if link is not None and link.state == OPEN:
            del self.peers[peer.machine]
            self._retire(link)
            said = stderr.strip().splitlines()
            why = f" ({said[-1][:200]})" if said else ""
            node.lost(peer.machine, f"the connection closed{why}", self.session.now())
            self.session.kick()
            return
        node.drop_child(peer.machine)
        host = self.session.machines[peer.machine].host
        noise = peer.bootstrap.noise().decode("utf-8", "replace")[-500:] if peer.bootstrap is not None else ""
        how = remote if host.local else diagnose_ssh
        self._failed(peer, Unreached(*how(255 if code < 0 else code, stderr or noise, host.python)))

    # Bytes.

    def pump(self, peer: _Peer) -> None:
        """Write what the link has, as far as the connection takes it."""
        link = self.session.node.children.get(peer.machine)
        connection = peer.connection
        while link is not None and connection is not None and connection.writable:
            data = link.pull(WRITE_SIZE)
            if not data:
                break
            connection.write(data)

    def pump_all(self) -> None:
        for machine in list(self.session.node.sendable):
            peer = self.peers.get(machine)
            if peer is not None:
                self.pump(peer)

    # The end.

    def close(self, machine: int) -> None:
        """The node has given this link up."""
        peer = self.peers.pop(machine, None)
        if peer is not None:
            self.pump(peer)
            self._part(peer, SOON)

    def _part(self, peer: _Peer, wait: float = CLOSING) -> None:
        if peer.connection is not None:
            task = asyncio.get_running_loop().create_task(peer.connection.close(wait))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def shut(self, timeout: float) -> None:
        """Close them all, within `timeout` seconds; none is dialled again."""
        self._shut = True
        if self._redial is not None:
            self._redial.cancel()
        for task in list(self._dialling):
            task.cancel()
        peers, self.peers = list(self.peers.values()), {}
        for peer in peers:
            link = self.session.node.children.get(peer.machine)
            if link is not None:
                if link.state == OPEN:  # or the agents would think that the root is lost, and wait for it
                    link.send(frames.CONTROL, frames.BYE, 0, b"", b"the run is over")
                    self.pump(peer)
                self._retire(link)
            self._part(peer)
        closing = list(self._closing)
        if closing:
            _, late = await asyncio.wait(closing, timeout=timeout)
            for task in late:
                task.cancel()
        await asyncio.gather(*self._dialling, *closing, return_exceptions=True)

    # Figures.

    def _retire(self, link: Link) -> None:
        for i, value in enumerate((link.messages_in, link.messages_out, link.bytes_in, link.bytes_out)):
            self._retired[i] += value
        link.messages_in = link.messages_out = link.bytes_in = link.bytes_out = 0

    def statistics(self) -> dict[str, int]:
        """connections, messages_in, messages_out, bytes_in, bytes_out: what the run has cost the root so far."""
        totals = list(self._retired)
        for link in self.session.node.children.values():
            for i, value in enumerate((link.messages_in, link.messages_out, link.bytes_in, link.bytes_out)):
                totals[i] += value
        names = ("messages_in", "messages_out", "bytes_in", "bytes_out")
        return {"connections": self.connections, **dict(zip(names, totals, strict=True))}
