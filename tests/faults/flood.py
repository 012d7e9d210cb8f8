"""A scenario whose machines log as fast as they are let, and report what they have logged: for `test_root.py`."""

from fanout import Fleet, scenario

PROGRAM = """
import hashlib, subprocess, sys
said, digest = 0, hashlib.sha256()
for number in range(1, int(sys.argv[1]) + 1):
    piece = b"%d %s\\n" % (number, b"x" * 990)
    digest.update(piece)
    said += len(piece)
    sys.stdout.buffer.write(piece)
    sys.stdout.flush()
    if number % 1000 == 0:
        subprocess.run(["fanout", "report", str(number // 1000)], check=True)
subprocess.run(["fanout", "report", f"logged {said} {digest.hexdigest()}"], check=True)
"""


@scenario(machines=6, ttl="10m")
async def flood(fleet: Fleet, lines: int = 20_000) -> None:
    logging = await fleet.spawn(["python3", "-c", PROGRAM, str(lines)], name="flood", logs="all")
    fleet.report("flooding")
    await logging.wait(timeout="9m")


@scenario(machines=6, ttl="10m")
async def stubborn(fleet: Fleet) -> None:
    shell = "trap '' TERM; (setsid sh -c 'trap \"\" TERM; sleep 500' &); echo up; sleep 500 & wait"
    await fleet.spawn(shell, name="stubborn", ready="up")
    fleet.report("everything runs")
    await fleet.run("sleep 500", timeout="10m")
