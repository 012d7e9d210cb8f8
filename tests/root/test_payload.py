"""The payload: small, complete, the same each time, and true to its sources line by line."""

import ast
import marshal
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanout.errors import FanoutError
from fanout.root import payload as module
from fanout.root.payload import build, compact, payload, raw_sources, strip, untyped


def sources(part: str | None = None) -> dict[str, str]:
    """Of one part, or of the agent and all its parts."""
    return {name: compact(untyped(strip(text))) for name, text in raw_sources().items()
            if part is None or module.part_of(name) == part}


def test_it_is_at_most_40_kb() -> None:
    built = payload()
    assert len(built.source) + len(zlib.compress(built.stage0)) <= 40 << 10


def test_what_is_sent_decodes_to_the_sources_with_their_build() -> None:
    built = payload()
    modules = marshal.loads(zlib.decompress(built.source))
    assert modules.pop("").decode() == built.build
    assert modules == sources("")
    (code,) = built.codes.values()
    assert marshal.loads(zlib.decompress(code)).keys() == {"", *modules}


def test_code_keeps_its_lines_and_leaves_its_columns_at_home() -> None:
    code = marshal.loads(module.compiled({"a": "\nx = 1\n"})["a"])
    lines = {line for line, *_ in code.co_positions()}
    assert code.co_filename == "a.py" and 2 in lines
    assert {column for _, _, *columns in code.co_positions() for column in columns} == {None}


def test_sources_that_cannot_be_compiled_are_told() -> None:
    with pytest.raises(FanoutError, match=r"(?s)the agent cannot be compiled by .*SyntaxError"):
        module.compiled({"a": "x =\n"})


def test_parts_travel_apart_and_nothing_is_in_two_or_in_none() -> None:
    built = payload()
    assert built.parts.keys() == module.PARTS.keys()
    for name, part in built.parts.items():
        assert len(part) == 2, "source, and code for the root's own Python"
        for packed in part.values():
            assert marshal.loads(zlib.decompress(packed)).keys() == sources(name).keys()
        assert len(sources(name)) == len(module.PARTS[name]), "a module that there is not"
        assert sum(map(len, part.values())) < 64 << 10, "it is sent in one message"


def test_the_build_tells_agents_with_other_parts_apart() -> None:
    raw = {"fanout.agent.main": "x = 1\n", "fanout.agent.shipping": "y = 1\n"}
    one, other = build(raw, "z = 1\n"), build({**raw, "fanout.agent.shipping": "y = 2\n"}, "z = 1\n")
    assert one.build != other.build


def test_every_module_parses_and_none_imports_what_is_dear() -> None:
    dear = {"asyncio", "dataclasses", "subprocess", "typing", "json", "enum", "pathlib", "contextlib", "signal"}
    for name, source in sources().items():
        tree = ast.parse(source, feature_version=(3, 8))
        imported = {alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
        imported |= {node.module or "" for node in tree.body if isinstance(node, ast.ImportFrom)}
        if name.startswith("fanout.agent") and name.rpartition(".")[2] not in ("helper", "member", "client"):
            assert not {module.split(".")[0] for module in imported} & dear, name


def test_comments_and_docstrings_stay_at_home_and_lines_stay_in_place() -> None:
    source = ('"""Doc."""\n# note\nx = 1  # why\n\ndef f(a):\n    """Long\n    doc."""\n'
              '    return "# no" + \'"""\'  # c\n')
    assert strip(source) == '""\n\nx = 1\n\ndef f(a):\n    ""\n\n    return "# no" + \'"""\'\n'


@given(st.lists(st.sampled_from([
    "x = 1", "# a comment", '"""doc"""', "def f():\n    '''doc\n    more'''\n    return 1", "y = '#'  # c", "",
    "class A:\n    # c\n    b = '''a\n# not a comment\n'''",
    "z = (1,  # c\n  2)", "if x:\n    pass\n    # end", "'s'; w = 2",
])))
def test_stripping_changes_no_meaning_and_no_line_number(parts: list[str]) -> None:
    source = "\n".join(parts) + "\n"

    def shape(text: str) -> list[tuple[str, int, str]]:
        found = []
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.stmt):
                bare = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
                value = "" if bare or hasattr(node, "body") else ast.dump(node)
                found.append((type(node).__name__, node.lineno, value))
        return found

    assert shape(strip(source)) == shape(source)


def test_a_cache_that_is_damaged_or_that_others_may_write_is_not_used(tmp_path, monkeypatch) -> None:
    made = build({"a": "x = 1\n"}, "y = 2\n")
    path = tmp_path / "agent-x"
    module._write(path, made)
    assert module._read(path).source == made.source
    path.chmod(0o666)
    assert module._read(path) is None
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert module._read(path) is None
    assert module._read(tmp_path / "none") is None


def test_annotations_stay_at_home_and_lines_stay_in_place() -> None:
    source = ("from __future__ import annotations\nTYPE_CHECKING = False\nif TYPE_CHECKING:\n    import typing\n"
              "def f(a: int, *b: 'é', c: str = 'x: int') -> dict[str, int]:\n    d: int = 3\n    return d\n")
    assert untyped(source) == ("from __future__ import annotations\n\n\n\n"
                               "def f(a, *b, c = 'x: int') :\n    d = 3\n    return d\n")


def test_without_annotations_every_module_is_the_same_program() -> None:
    def plain(source: str) -> str:
        tree = ast.parse(source)
        for node in ast.walk(tree):
            if isinstance(node, ast.arg):
                node.annotation = None
            elif isinstance(node, ast.FunctionDef):
                node.returns = None
        return ast.dump(tree)

    class Untype(ast.NodeTransformer):
        def visit_AnnAssign(self, node):
            return ast.Assign([node.target], node.value, lineno=node.lineno) if node.value else node

        def visit_Assign(self, node):
            return None if ast.unparse(node) == "TYPE_CHECKING = False" else node

        def visit_If(self, node):
            guard = isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
            return None if guard else self.generic_visit(node)

    for name, text in raw_sources().items():
        stripped = strip(text)
        expected = plain(ast.unparse(Untype().visit(ast.parse(stripped))))
        assert plain(ast.unparse(ast.parse(untyped(stripped)))) == expected, name


def test_spaces_that_are_not_needed_stay_at_home_and_tokens_in_place() -> None:
    for name, text in raw_sources().items():
        whole = untyped(strip(text))
        small = compact(whole)
        assert ast.dump(ast.parse(small)) == ast.dump(ast.parse(whole)), name
        lines = [[getattr(node, "lineno", 0) for node in ast.walk(ast.parse(one))] for one in (small, whole)]
        assert lines[0] == lines[1], name
