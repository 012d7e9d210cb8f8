"""A program on each machine that knows its id, itself and the network; two of them are synchronised by it alone.

The program is a shell script: what it reports comes back marked with its machine, and what its daemons print stays
where it is.  The scenario waits with the machines at the same barriers.

    fanout run scenarios/octez_like.py -n 5
    fanout run scenarios/octez_like.py --fleet lab -n 20 --relays 2
"""

from pathlib import Path

from fanout import Fleet, scenario

PROGRAM = Path(__file__).with_name("octez_node.sh")


@scenario(machines=5, ttl="10m", tags=["example", "octez"])
async def octez_like(fleet: Fleet) -> None:
    assert len(fleet) >= 2, "one machine bakes, another waits for it: use -n 2 or more"
    async with fleet.step("put the program on every machine"):
        await fleet.run("cat > node.sh", stdin=PROGRAM.read_text())

    nodes = await fleet.spawn(["sh", "node.sh", str(len(fleet))], name="node")
    async with fleet.step("everyone knows everyone"):
        await fleet.barrier("wired")
    async with fleet.step("one operation is injected, once the protocol is active"):
        [level] = await fleet.wait("protocol-active")
        await fleet.barrier("finished")
    ended = await nodes.wait()
    assert ended.ok, str(ended)
    fleet.report(f"{len(fleet)} nodes have followed the chain to level {level}")
