# What a machine runs first.  It comes over stdin as text and is executed by the stub in `core/bootstrap.py`, so it
# must run on any Python 3, say so when that is too old, and import next to nothing.
#
# Its first line of input says whether an agent of the run may be here already (`attach FOLDER`, in hexadecimal).
# If one is, it is handed this connection.  Otherwise the agent is taken, compiled for just this Python or as
# source, checked by its hash, and started.  Nothing is written to disk.
import os
import sys

if sys.version_info < (3, 8):
    os.write(1, ("\nfanout-stage0 old %d.%d\n" % sys.version_info[:2]).encode())
    sys.exit(1)

import _frozen_importlib
import _frozen_importlib_external
import marshal
import zlib

try:
    from _blake2 import blake2b
except ImportError:
    from hashlib import blake2b

def take(size):
    data = b""
    while len(data) < size:
        piece = os.read(0, size - len(data))
        if not piece:
            sys.exit(1)
        data += piece
    return data


def blob(size, digest):
    data = take(int(size))
    if data and blake2b(data, digest_size=32).hexdigest() != digest:
        sys.exit("fanout: the agent arrived damaged")
    return data


def words():
    line = b""
    while line[-1:] != b"\n":
        line += take(1)
    return line.decode().split()


def running_agent(mode, folder=""):
    if mode != "attach":
        return None
    import _socket

    agent = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        base = os.environ.get("TMPDIR") or "/tmp"
        folder = os.path.join(base, bytes.fromhex(folder).decode())
        here = os.open(folder, os.O_RDONLY)
        try:  # by a short name: a socket's path has 107 bytes at most
            short = "/proc/self/fd/%d" % here if os.path.isdir("/proc/self/fd") else folder
            agent.connect(short + "/attach")
        finally:
            os.close(here)
    except OSError:
        agent.close()
        return None
    return agent


MAGIC = _frozen_importlib_external.MAGIC_NUMBER.hex()
running = running_agent(*words())
status = "attached" if running else "new"
os.write(1, ("\nfanout-stage0 %s %d.%d %s\n" % ((MAGIC,) + sys.version_info[:2] + (status,))).encode())
if running:
    import _socket

    # The agent gets our two ends of the connection; we stay until it is done with them, because sshd ends the
    # connection when its command does.
    ends = b"".join(fd.to_bytes(4, sys.byteorder) for fd in (0, 1))
    running.sendmsg([b"+"], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, ends)])
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    while running.recv(1):
        pass
    sys.exit(0)

# `code` is the agent compiled for this Python, `source` what any Python can compile; one of them may be empty.
# In each a module is bytes where it is compiled, and text where it is source.
code_size, code_digest, source_size, source_digest = words()
code, source = blob(code_size, code_digest), blob(source_size, source_digest)
modules = marshal.loads(zlib.decompress(code or source))


class Payload:
    """Finds and loads the modules of the agent, and keeps what is handed on to children."""

    def __init__(self):
        self.build, self.magic, self.code, self.source = modules[""].decode(), MAGIC, code, source
        self.pyc_header = _frozen_importlib_external.MAGIC_NUMBER + bytes(12)

    def find_spec(self, name, path=None, target=None):
        if name in modules or name + ".__init__" in modules:
            package = name not in modules
            return _frozen_importlib.ModuleSpec(name, self, is_package=package)
        return None

    def create_module(self, spec):
        return None

    def learn(self, part):
        """Modules that come later: source under "", and code under the magic number that it is for."""
        modules.update(marshal.loads(zlib.decompress(part.get(MAGIC) or part[""])))

    def compiled(self, name):
        key = name if name in modules else name + ".__init__"
        body = modules[key]
        if isinstance(body, bytes):
            return marshal.loads(body)
        return compile(body, key.replace(".", "/") + ".py", "exec", dont_inherit=True, optimize=2)

    def marshalled(self, name):
        body = modules[name]
        return body if isinstance(body, bytes) else marshal.dumps(self.compiled(name.replace(".__init__", "")))

    def exec_module(self, module):
        exec(self.compiled(module.__name__), module.__dict__)

    def compile_all(self):
        """The same agent, compiled for this Python: for children that run an equal one."""
        if code:
            return code
        packed = {name: marshal.dumps(self.compiled(name)) for name in modules if name}
        packed[""] = modules[""]
        return zlib.compress(marshal.dumps(packed, 2))


payload = Payload()
sys.meta_path.insert(0, payload)
from fanout.agent.main import main  # noqa: E402

main(payload)
