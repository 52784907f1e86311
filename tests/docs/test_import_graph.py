"""The drawing of imports between packages: complete, downwards, and small enough for a page."""

import re

import import_graph as drawing
import pytest


@pytest.fixture(scope="module")
def graph() -> drawing.Graph:
    return drawing.import_graph()


def test_every_package_is_drawn_once(graph):
    assert sorted(graph) == sorted(re.findall(r">(\w+)</text>", drawing.svg(graph)))


def test_every_line_goes_down(graph):
    level = drawing.levels(graph)
    assert [] == [pair for pair in drawing.lines(graph) if level[pair[0]] <= level[pair[1]]]
    for path in re.findall(r'<path d="M([^"]+)"/>', drawing.svg(graph)):
        heights = [int(number) for number in re.findall(r"\d+ (\d+)", path)]
        assert heights == sorted(heights)


def test_it_fits_one_page(graph):
    width, height = map(int, re.search(r'viewBox="0 0 (\d+) (\d+)"', drawing.svg(graph)).groups())
    assert height <= width * 297 / 210  # A4


def test_a_line_that_others_imply_is_left_out():
    graph = {"a": {"b", "c"}, "b": {"c"}, "c": set()}
    assert [("a", "b"), ("b", "c")] == drawing.lines(graph)


def test_a_circle_of_imports_is_refused():
    with pytest.raises(ValueError, match="circle"):
        drawing.levels({"a": {"b"}, "b": {"a"}})
