"""A rolling restart that keeps a quorum: a watcher asks all replicas all the time, and counts who answers.

    fanout run scenarios/rolling.py -n 10
    fanout run scenarios/rolling.py -n 10 --arg quorum=0.8
"""

import math

from fanout import Fleet, scenario

# It keeps its port over a restart, in a file beside it.
REPLICA = """
import os, socketserver

class Answer(socketserver.BaseRequestHandler):
    def handle(self):
        self.request.sendall(b"here")

class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True

port = int(open("port").read()) if os.path.exists("port") else 0
server = Server(("", port), Answer)
with open("port", "w") as file:
    file.write(str(server.server_address[1]))
print("serving on port", server.server_address[1], flush=True)
server.serve_forever()
"""

# Asks everyone once per round, and tells the least number of answers when its standard input ends.
WATCHER = """
import select, socket, sys

def answers(place):
    host, _, port = place.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=5) as connection:
            return connection.recv(4) == b"here"
    except OSError:
        return False

places, least = sys.argv[1:], None
while not select.select([sys.stdin], [], [], 0.05)[0]:
    up = sum(map(answers, places))
    if least is None:
        print("watching, up:", up, flush=True)
    least = up if least is None else min(least, up)
print("least", least, flush=True)
"""


@scenario(machines=5, ttl="10m", tags=["example"])
async def rolling(fleet: Fleet, quorum: float = 0.5) -> None:
    """More than `quorum` of the replicas must answer at every moment."""
    replicas, needed = fleet[1:], math.floor(quorum * (len(fleet) - 1)) + 1
    together = len(replicas) - needed
    assert together >= 1, f"of {len(replicas)} replicas {needed} must stay: none can be restarted; use more machines"

    async with fleet.step("start the replicas and the watcher"):
        service = await replicas.spawn(["python3", "-c", REPLICA], name="replica", ready=r"serving on port (\d+)")
        places = [f"{machine.address}:{port}" for machine, [port] in service.ready.items()]
        watcher = await fleet[0].spawn(
            ["python3", "-c", WATCHER, *places], name="watcher", ready=rf"watching, up: {len(replicas)}$"
        )

    for at in range(0, len(replicas), together):
        batch = service[at : at + together]
        async with fleet.step(f"restart {batch.machines}"):
            await batch.stop()
            await batch.start()

    async with fleet.step("ask the watcher"):
        await watcher.write("", eof=True)
        seen = await watcher.wait_log(r"^least (\d+)", since="start")
        least = int(seen.groups[0])
        await watcher.wait()
        fleet.metric("least_up", least, "replicas")
        assert least >= needed, f"only {least} of {len(replicas)} replicas answered at some moment; {needed} must"

    fleet.report(f"{len(replicas)} replicas restarted, {together} at a time; {least} or more answered all the time")
