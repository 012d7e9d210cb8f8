"""Load generators start at one instant on every machine but one, and measure the server on that one.

Each machine measures its own requests; what comes back is merged on the way: count, sum and quantiles (within 1%).

    fanout run scenarios/load.py
    fanout run scenarios/load.py --fleet lab -n 21 --relays 3 --arg requests=200
"""

from pathlib import Path

from fanout import Fleet, scenario

SERVER = """
import http.server, sys

class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"ok")
    def log_message(self, *_):
        pass

http.server.ThreadingHTTPServer.request_queue_size = 256
server = http.server.ThreadingHTTPServer(("", 0), Answer)
print("listening on port", server.server_port, flush=True)
server.serve_forever()
"""

GENERATOR = """
import sys, time, urllib.request

url, requests = sys.argv[1], int(sys.argv[2])
with open("latencies", "w") as file:
    for _ in range(requests):
        began = time.perf_counter()
        urllib.request.urlopen(url, timeout=30).read()
        print(time.perf_counter() - began, file=file)
"""


def summarise(me, path: str) -> int:  # type: ignore[no-untyped-def]  # `me` comes on the machine
    """Runs on every generator's machine, where its file is: all values count, none travels alone."""
    seconds = [float(line) for line in Path(path).read_text().split()]
    for value in seconds:
        me.metric("latency", value * 1000, "ms")
    return len(seconds)


@scenario(machines={"server": 1, "generator": 20}, ttl="10m", tags=["example", "load"])
async def load(fleet: Fleet, requests: int = 50) -> None:
    """`requests`: how many each generator makes."""
    host, generators = fleet["server"][0], fleet["generator"]
    async with fleet.step("start the server"):
        server = await host.spawn(["python3", "-c", SERVER], name="server", ready=r"listening on port (\d+)")
        url = f"http://{host.address}:{server.ready[0]}/"

    async with fleet.step("generate load, from one instant on"):
        load = await generators.spawn(["python3", "-c", GENERATOR, url, str(requests)], name="load", at="+2s")
        ended = await load.wait("5m")
        assert ended.ok, str(ended)
        fleet.metric("skew", (load.skew or 0.0) * 1000, "ms")

    async with fleet.step("bring the figures home"):
        counts = await generators.each(summarise, "latencies")
    fleet.report(f"{len(generators)} generators made {sum(counts.values.values())} requests")
