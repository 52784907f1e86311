"""The drawing of which package imports which, as SVG, from the code.

A package stands above all packages that it imports, so every line goes down. A line that other
lines imply (A imports B, B imports C, and A imports C) is left out.
"""

import ast
import itertools
from dataclasses import dataclass
from html import escape
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src" / "mlproject"
BASE = "errors"  # every package imports it: drawn as a bar without lines
WIDTH, BOX, ROW, MARGIN = 760, (124, 34), 74, 8  # px

Graph = dict[str, set[str]]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a package, or a bend of a line that passes a row, is drawn."""

    x: float
    """Centre, px from the left."""
    y: float
    """Centre, px from the top."""


def import_graph(source: Path = SOURCE) -> Graph:
    """The packages that each package of a folder imports, without itself."""
    names = {path.parent.name for path in source.glob("*/__init__.py")}
    names |= {path.stem for path in source.glob("[a-z]*.py")}
    graph: Graph = {name: set() for name in names}
    exports = _exports(source)
    for file in source.rglob("*.py"):
        importer = file.relative_to(source).parts[0].removesuffix(".py")
        if importer in names:
            graph[importer] |= (_imported(file, exports) & names) - {importer}
    return graph


def levels(graph: Graph) -> dict[str, int]:
    """How many imports lie below each package at most; 0 = it imports nothing of ours.

    Raises:
        ValueError: Packages import each other in a circle.
    """
    found: dict[str, int] = {}
    while len(found) < len(graph):
        ready = {name for name in graph if name not in found and graph[name] <= set(found)}
        if not ready:
            raise ValueError(f"a circle of imports among {sorted(set(graph) - set(found))}")
        found |= {name: max((found[one] + 1 for one in graph[name]), default=0) for name in ready}
    return found


def lines(graph: Graph) -> list[tuple[str, str]]:
    """The imports that no path of other imports implies, as (importer, imported)."""
    below = {name: _reachable(graph, name) for name in graph}
    return sorted(
        (name, one)
        for name, imported in graph.items()
        for one in imported
        if not any(one in below[other] for other in imported - {one})
    )


def svg(graph: Graph) -> str:
    """The drawing, as HTML: a box for each package, a line for each import, the top layer first."""
    graph = {name: imported - {BASE} for name, imported in graph.items() if name != BASE}
    rows, chains = _rows(graph)
    places = _places(rows)
    height = round(len(rows) * ROW + 2 * MARGIN + BOX[1])
    drawn = [_path([places[name] for name in chain]) for chain in chains]
    drawn += [_box(name, places[name], BOX[0], summary(name)) for name in sorted(graph)]
    base = Place(WIDTH / 2, len(rows) * ROW + MARGIN + BOX[1] / 2)
    drawn.append(_box(BASE, base, WIDTH - 2 * MARGIN, f"{BASE}: imported by every package"))
    return (
        f'<div class="import-graph"><svg viewBox="0 0 {WIDTH} {height}" role="img" '
        f'xmlns="http://www.w3.org/2000/svg" aria-label="Imports between packages">'
        + "".join(drawn)
        + "</svg></div>"
    )


def summary(name: str) -> str:
    """The first line of a package's docstring."""
    file = SOURCE / name / "__init__.py"
    file = file if file.is_file() else SOURCE / f"{name}.py"
    return (ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").split("\n")[0]


def _imported(file: Path, exports: dict[str, str]) -> set[str]:
    """What a file imports of ours; `mlproject.ingest` counts as the package that defines it."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            first, *rest = node.module.split(".")
            if first == "mlproject":
                found |= {rest[0]} if rest else {alias.name for alias in node.names}
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "mlproject":
            found.add(node.attr)
    return {exports.get(name, name) for name in found}


def _exports(source: Path) -> dict[str, str]:
    """The package of each public function of `mlproject`."""
    tree = ast.parse((source / "__init__.py").read_text(encoding="utf-8"))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module]
    return {
        alias.name: node.module.split(".")[1]
        for node in imports
        for alias in node.names
        if node.module.startswith("mlproject.")
    }


def _reachable(graph: Graph, name: str) -> set[str]:
    return set(graph[name]).union(*(_reachable(graph, one) for one in graph[name]))


def _rows(graph: Graph) -> tuple[list[list[str]], list[list[str]]]:
    """The names in each row, top to bottom, and each line as the names it goes through.

    A line that passes a row has a bend there, which takes part in the order of the row.
    """
    level = levels(graph)
    rows: list[list[str]] = [[] for _ in range(max(level.values()) + 1)]
    for name in sorted(graph):
        rows[-1 - level[name]].append(name)
    chains = []
    for upper, lower in lines(graph):
        bends = [f"{upper}>{lower}>{row}" for row in range(level[upper] - 1, level[lower], -1)]
        for bend in bends:
            rows[-1 - int(bend.rsplit(">", 1)[1])].append(bend)
        chains.append([upper, *bends, lower])
    return _ordered(rows, chains), chains


def _ordered(rows: list[list[str]], chains: list[list[str]]) -> list[list[str]]:
    """The rows in an order with few crossings: each name near the middle of its neighbours.

    Source: Sugiyama, Tagawa, Toda (1981), the barycentre heuristic.
    """
    near: dict[str, set[str]] = {name: set() for row in rows for name in row}
    for chain in chains:
        for one, other in itertools.pairwise(chain):
            near[one].add(other)
            near[other].add(one)
    for turn in range(40):
        order = range(len(rows)) if turn % 2 else range(len(rows) - 1, -1, -1)
        for index in order:
            places = _places(rows)
            fixed = rows[index - 1] if turn % 2 and index else rows[min(index + 1, len(rows) - 1)]

            def middle(name: str, places=places, fixed=fixed) -> float:
                known = [places[one].x for one in near[name] if one in fixed]
                return sum(known) / len(known) if known else places[name].x

            rows[index] = sorted(rows[index], key=middle)
    return rows


def _places(rows: list[list[str]]) -> dict[str, Place]:
    """Evenly spread in each row; a bend takes a third of the room of a box."""
    found = {}
    for index, row in enumerate(rows):
        shares = [1 if ">" not in name else 0.35 for name in row]
        x = 0.0
        for name, share in zip(row, shares, strict=True):
            step = WIDTH * share / sum(shares)
            found[name] = Place(x + step / 2, index * ROW + MARGIN + BOX[1] / 2)
            x += step
    return found


def _path(places: list[Place]) -> str:
    half = BOX[1] / 2
    first, last = places[0], places[-1]
    points = [Place(first.x, first.y + half), *places[1:-1], Place(last.x, last.y - half)]
    words = [f"M{points[0].x:.0f} {points[0].y:.0f}"]
    for one, two in itertools.pairwise(points):
        middle = (one.y + two.y) / 2
        words.append(f"C{one.x:.0f} {middle:.0f} {two.x:.0f} {middle:.0f} {two.x:.0f} {two.y:.0f}")
    return f'<path d="{" ".join(words)}"/>'


def _box(name: str, place: Place, width: float, title: str) -> str:
    x, y = place.x - width / 2, place.y - BOX[1] / 2
    return (
        f"<g><title>{escape(title)}</title>"
        f'<rect x="{x:.0f}" y="{y:.0f}" width="{width}" height="{BOX[1]}" rx="4"/>'
        f'<text x="{place.x:.0f}" y="{place.y + 5:.0f}">{name}</text></g>'
    )
