"""A small peer-to-peer program: nodes find each other from a seed, and agree on the newest value.

    python3 gossip_node.py NAME ADDRESS [SEED_ADDRESS:PORT]

Each node keeps a table (name -> address, port, incarnation) and one value with a version.  A few times a second it
sends what it knows to a peer chosen at random, over UDP, and the peer answers with what it knows itself; the
higher incarnation and the higher version win.  A line `VERSION TEXT` on standard input sets the value.
Standard library only, Python 3.8 and later.
"""

import contextlib
import json
import random
import selectors
import socket
import sys
import time

PERIOD = 0.2  # s between two messages of a node
TOLD = 100  # entries of the table in one message, so that it fits into a datagram


class Node:
    def __init__(self, name, address, seed):
        self.name = name
        self.seed = seed
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("", 0))
        self.port = self.socket.getsockname()[1]
        self.table = {name: [address, self.port, time.time_ns()]}
        self.value = [0, ""]

    def message(self, answer):
        """What to tell: this node, and some of the others."""
        others = random.sample(list(self.table), min(TOLD, len(self.table)))
        entries = {name: self.table[name] for name in [*others, self.name]}
        return json.dumps({"answer": answer, "from": self.name, "table": entries, "value": self.value}).encode()

    def send(self, address, port, answer):
        with contextlib.suppress(OSError):  # a peer that is away; another time
            self.socket.sendto(self.message(answer), (address, port))

    def gossip(self):
        peers = [entry for name, entry in self.table.items() if name != self.name]
        if peers:
            address, port, _ = random.choice(peers)
            self.send(address, port, True)
        if self.seed and (not peers or random.random() < 0.1):
            self.send(*self.seed, True)

    def receive(self):
        try:
            heard = json.loads(self.socket.recv(1 << 16))
        except (OSError, ValueError):
            return
        before = len(self.table)
        for name, entry in heard["table"].items():
            if name not in self.table or entry[2] > self.table[name][2]:
                self.table[name] = entry
        if len(self.table) != before:
            print("knows", len(self.table), "members", flush=True)
        self.adopt(heard["value"])
        sender = self.table.get(heard["from"])
        if heard["answer"] and sender:
            self.send(sender[0], sender[1], False)

    def adopt(self, value):
        if value[0] > self.value[0]:
            self.value = value
            print("value", value[0], value[1], flush=True)

    def run(self):
        print("listening on port", self.port, flush=True)
        selector = selectors.DefaultSelector()
        selector.register(self.socket, selectors.EVENT_READ)
        selector.register(sys.stdin, selectors.EVENT_READ)
        due = time.monotonic()
        while True:
            for key, _ in selector.select(max(0.0, due - time.monotonic())):
                if key.fileobj is self.socket:
                    self.receive()
                    continue
                line = sys.stdin.readline()
                if line:
                    version, _, text = line.strip().partition(" ")
                    self.adopt([int(version), text])
                else:
                    selector.unregister(sys.stdin)
            if time.monotonic() >= due:
                self.gossip()
                due = time.monotonic() + PERIOD * random.uniform(0.5, 1.5)


if __name__ == "__main__":
    seed = None
    if len(sys.argv) > 3:
        host, _, port = sys.argv[3].rpartition(":")
        seed = (host, int(port))
    Node(sys.argv[1], sys.argv[2], seed).run()
