"""Charts are well-formed SVG, whatever they are given, and need nothing from elsewhere."""

from __future__ import annotations

from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from fanout.bench.plot import Chart, Line, Point

VALUE = st.floats(1e-9, 1e12)


@given(points=st.lists(st.tuples(VALUE, VALUE), min_size=1, max_size=8), name=st.text("a<&\"'>", max_size=5))
def test_any_values_make_a_chart(points: list[tuple[float, float]], name: str) -> None:
    lines = [Line(name, [Point(x, y, y / 2, y * 2) for x, y in points]), Line("", [Point(*points[0])], 1, dashed=True)]
    chart = Chart(name, name, name, lines, [(points[0][0], name)])
    for alone in (True, False):
        drawn = ElementTree.fromstring(chart.svg(alone))
        assert len(drawn.findall(".//{*}circle")) == len(points)
        assert all(not value.startswith("nan") for node in drawn.iter() for value in node.attrib.values())


def test_a_chart_of_nothing_is_nothing() -> None:
    assert Chart("t", "x", "y", [Line("a", []), Line("b", [Point(10, 0.0)])]).svg() == ""
