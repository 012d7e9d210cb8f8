"""Nodes of a peer-to-peer program find each other; some are killed and restarted at once, and must catch up.

    fanout run scenarios/gossip.py -n 20
    fanout run scenarios/gossip.py --fleet lab -n 60 --relays 4 --arg share=0.5
"""

import time
from pathlib import Path

from fanout import Fleet, Process, Processes, scenario

PROGRAM = Path(__file__).with_name("gossip_node.py")
NODE = ["python3", "gossip_node.py", "{name}", "{address}"]


@scenario(ttl="10m", tags=["example", "p2p"])
async def gossip(fleet: Fleet, share: float = 0.25, patience: str = "2m") -> None:
    """`share` of the nodes is killed; `patience` is how long convergence may take."""
    assert len(fleet) >= 2, "gossip needs someone to gossip with: use -n 2 or more"
    everyone = rf"^knows {len(fleet)} members"

    async with fleet.step("put the program on every machine"):
        await fleet.run("cat > gossip_node.py", stdin=PROGRAM.read_text())

    async with fleet.step("find each other"):
        seed = await fleet[0].spawn(NODE, name="seed", ready=r"listening on port (\d+)")
        began = time.monotonic()
        peers = await fleet[1:].spawn(
            [*NODE, f"{fleet[0].address}:{seed.ready[0]}"], name="node", ready=everyone, ready_timeout=patience
        )
        await seed.wait_log(everyone, patience, since="start")
        fleet.metric("discovery_s", time.monotonic() - began, "s")

    async with fleet.step("agree on a value"):
        fleet.metric("spread_s", await spread(seed, peers, "1 before", patience), "s")

    victims = peers[fleet[1 : 1 + max(1, round(share * len(peers)))]]
    async with fleet.step(f"kill {len(victims)} of {len(fleet)}, and change the value meanwhile"):
        await victims.kill()
        await seed.write("2 after\n")

    async with fleet.step("restart them at one instant"):
        began = time.monotonic()
        await victims.start(ready_timeout=patience)
        await peers.wait_log("^value 2 after", patience, since="start")
        fleet.metric("recovery_s", time.monotonic() - began, "s")

    fleet.report(f"{len(fleet)} nodes agree again after {len(victims)} were restarted")


async def spread(seed: Process, peers: Processes, value: str, patience: str) -> float:
    """Seconds from the moment that the seed has a value until every peer has it."""
    began = time.monotonic()
    await seed.write(f"{value}\n")
    await peers.wait_log(f"^value {value}", patience, since="start")
    return time.monotonic() - began
