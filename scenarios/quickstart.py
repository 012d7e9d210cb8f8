"""A server on one machine; all others wait until it listens, and talk to it.

    fanout run scenarios/quickstart.py
"""

from fanout import Fleet, scenario

SERVER = """
import http.server

class Hello(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"hello from {name}")

server = http.server.ThreadingHTTPServer(("", 0), Hello)
print("listening on port", server.server_port, flush=True)
server.serve_forever()
"""

CLIENT = """
import sys, urllib.request
print(urllib.request.urlopen(sys.argv[1], timeout=30).read().decode())
"""


@scenario(machines=5, ttl="5m", tags=["example"])
async def quickstart(fleet: Fleet) -> None:
    assert len(fleet) >= 2, "one machine serves, the others ask: use -n 2 or more"
    host, others = fleet[0], fleet[1:]

    async with fleet.step("start the server"):
        server = await host.spawn(["python3", "-c", SERVER], name="server", ready=r"listening on port (\d+)")
        [port] = server.ready

    async with fleet.step("ask it from everywhere else"):
        answers = await others.run(["python3", "-c", CLIENT, f"http://{host.address}:{port}/"])
        fleet.show(answers, "what the server said")
        assert answers.stdout == f"hello from {host.name}\n"

    async with fleet.step("stop the server"):
        await server.stop()
    fleet.report(f"{len(others)} machines heard {host.name}", port=int(port))
