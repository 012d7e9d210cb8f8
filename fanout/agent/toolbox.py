"""What programs find on a machine: the `fanout` helper, its modules, the socket, the files of members.

Made when the first program is started, so that a machine which only relays pays nothing.  The modules are written
as compiled code for the Python that runs here, so a helper call does not compile, and as one file.
"""

from __future__ import annotations

import os
import sys

from .core.archive import archive
from .service import Service

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .main import Agent

MODULES = (
    "fanout.__init__", "fanout.agent.__init__", "fanout.agent.client", "fanout.agent.helper",
    "fanout.agent.core.__init__", "fanout.agent.core.codec", "fanout.agent.core.limits",
    "msgpack.__init__", "msgpack.exceptions", "msgpack.ext", "msgpack.fallback",
)  # fmt: skip
MEMBER = "fanout.agent.member"  # travels before the first member function, when programs may be using the others

SCRIPT = """\
#!/bin/sh
exec '%s' -I -S -c 'import sys; sys.path.insert(0, "%s"); from fanout.agent.helper import main; main()' "$@"
"""


class Toolbox:
    def __init__(self, agent: Agent, payload: Any) -> None:
        """OSError when it cannot be written."""
        self.agent = agent
        self._payload = payload
        self._members = ""
        """What member functions import from, once there was one."""
        library = self._library("library.zip", MODULES)
        folder = os.path.join(agent.folder, "bin")
        os.mkdir(folder, 0o700)
        _write(os.path.join(folder, "fanout"), (SCRIPT % (sys.executable, library)).encode(), 0o700)
        agent.environment["PATH"] = folder + os.pathsep + agent.environment.get("PATH", os.defpath)
        self.service = Service(agent)

    def _library(self, name: str, modules: tuple[str, ...]) -> str:
        """The path of a file that these can be imported from."""
        path, payload = os.path.join(self.agent.folder, name), self._payload
        _write(path, archive({
            name.replace(".", "/") + ".pyc": payload.pyc_header + payload.marshalled(name) for name in modules}), 0o600)
        return path

    def member_spec(self, body: dict[str, Any]) -> dict[str, Any]:
        """The launch of a member function; its files are written the first time they come."""
        from .core import codec

        folder = os.path.join(self.agent.folder, "code-" + body["code_id"])
        if not os.path.isdir(folder):
            if body.get("files") is None:
                raise ValueError("the files of this member did not come")
            part = folder + ".part"  # it gets its name when it is whole
            for name, data in body["files"].items():
                path = os.path.normpath(os.path.join(part, name))
                if not path.startswith(part + os.sep):
                    raise ValueError("%r leads out of the member's folder" % name)
                os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
                _write(path, data, 0o600)
            os.rename(part, folder)
        task = {name: body[name] for name in ("module", "function", "args", "kwargs", "origin")}
        task["folder"] = folder
        task["public"] = body.get("public") or []
        if not self._members:
            self._members = self._library("members.zip", MODULES + (MEMBER,))
        code = 'import sys; sys.path.insert(0, "%s"); from fanout.agent.member import main; main()' % self._members
        return {"argv": [sys.executable, "-u", "-c", code], "stdin": codec.pack(task), "timeout": body.get("timeout"),
                "env": dict(body.get("env") or {}, PYTHONDONTWRITEBYTECODE="1"), "cwd": body.get("cwd"),
                "capture": 64 << 10}

    def close(self) -> None:
        self.service.close()


def _write(path: str, data: bytes, mode: int) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
