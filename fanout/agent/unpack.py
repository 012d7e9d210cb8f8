"""A folder that came as a tar archive, unpacked beside its place and renamed into it.

The archive is made by the root; still nothing in it may lead out of the folder: absolute names, `..`, links to
outside and devices are refused.
"""

from __future__ import annotations

import os
import shutil
import tarfile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


def check(member: tarfile.TarInfo) -> None:
    """ValueError for what has no place in a shipped folder."""
    name = os.path.normpath(member.name)
    if os.path.isabs(name) or name.split("/")[0] == "..":
        raise ValueError("%r leads out of the folder" % member.name)
    if member.issym():
        leads = os.path.normpath(os.path.join(os.path.dirname(name), member.linkname))
        if os.path.isabs(member.linkname) or leads.split("/")[0] == "..":
            raise ValueError("the link %r leads out of the folder" % member.name)
    elif not member.isfile() and not member.isdir():
        raise ValueError("%r is no file, folder or symbolic link" % member.name)


def steps(archive: str, to: str) -> Iterator[None]:
    """One member a step."""
    beside = "%s.fanout-%d" % (to, os.getpid())
    shutil.rmtree(beside, ignore_errors=True)
    os.mkdir(beside, 0o700)
    modes = []
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                check(member)
                path = os.path.join(beside, member.name)
                if member.isdir():
                    os.makedirs(path, 0o700, exist_ok=True)
                    modes.append((path, member.mode & 0o777))
                elif member.issym():
                    os.symlink(member.linkname, path)
                else:
                    source = tar.extractfile(member)
                    assert source is not None
                    with open(path, "wb") as file:
                        shutil.copyfileobj(source, file, 1 << 20)
                    os.chmod(path, member.mode & 0o777)
                yield
        for path, mode in reversed(modes):
            os.chmod(path, mode)
        if os.path.isdir(to) and not os.path.islink(to):
            shutil.rmtree(to)
        os.rename(beside, to)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
