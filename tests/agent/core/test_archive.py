"""The zip file of modules is one for every reader."""

import io
import zipfile

from hypothesis import given
from hypothesis import strategies as st

from fanout.agent.core.archive import archive

names = st.text("abc_/.", min_size=1, max_size=20)


@given(st.dictionaries(names, st.binary(max_size=300), max_size=5))
def test_what_is_put_in_is_what_any_reader_finds(files: dict[str, bytes]) -> None:
    with zipfile.ZipFile(io.BytesIO(archive(files))) as read:
        assert read.testzip() is None
        assert {name: read.read(name) for name in read.namelist()} == files
