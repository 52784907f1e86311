"""The bar chart of `score`: images a second of each way, as SVG."""

import statistics
from dataclasses import replace
from html import escape

from results import Results, Row, rows

WIDTH, LABELS, BAR, GAP, TOP = 860, 330, 18, 8, 70  # px
COLOURS = {"loop": "#78909c", "ours": "#3f51b5", "onnxruntime": "#00796b", "native": "#80cbc4"}
LEGEND = {
    "loop": "bare loop",
    "ours": "score",
    "onnxruntime": "peer, same ONNX network",
    "native": "peer, {framework}",
}
STYLE = (
    "text{fill:#212121}.s{font-size:12px;fill:#455a64}"
    ".w{stroke:#212121;stroke-width:1.5;fill:none}.l{stroke:#78909c;stroke-dasharray:4 3}"
)


def svg(results: Results) -> str:
    """The chart; a line over each bar goes from the slowest to the fastest repetition."""
    found = []
    for row in rows(results):
        if row.kind == "ours" and row.whole and row.second:
            found.append(replace(row, second=()))
        found += [row] if row.warm else []
    fastest = max(results.photos / min(row.warm) for row in found)
    scale = (WIDTH - LABELS - 80) / fastest  # px for an image a second
    height = TOP + len(found) * (BAR + GAP) + GAP
    title = f"Images a second, {results.framework}, {results.photos:,} photos"
    drawn = [_legend(results), *_limit(results, scale, height)]
    drawn += [_bar(row, number, results.photos, scale) for number, row in enumerate(found)]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'font-family="Helvetica, Arial, sans-serif" font-size="14" role="img" '
        f'aria-label="{escape(title)}"><style>{STYLE}</style>'
        f'<rect width="{WIDTH}" height="{height}" rx="8" fill="#fafafa"/>'
        f'<text x="{GAP * 2}" y="24">{escape(title)}</text>{"".join(drawn)}</svg>\n'
    )


def _legend(results: Results) -> str:
    parts, x = [], GAP * 2
    for kind, title in LEGEND.items():
        text = title.format(framework=results.framework)
        parts.append(
            f'<rect x="{x}" y="38" width="12" height="12" fill="{COLOURS[kind]}"/>'
            f'<text class="s" x="{x + 18}" y="48">{escape(text)}</text>'
        )
        x += 34 + 7 * len(text)
    return "".join(parts)


def _limit(results: Results, scale: float, height: int) -> list[str]:
    """A line at the limit."""
    limit = results.seconds.get("limit_again")
    if not limit:
        return []
    x = LABELS + scale * results.photos / statistics.median(limit)
    return [f'<path class="l" d="M{x:.1f} {TOP - GAP}V{height - GAP}"/>']


def _bar(row: Row, number: int, photos: int, scale: float) -> str:
    y = TOP + number * (BAR + GAP)
    rate = photos / statistics.median(row.warm)
    slowest, fastest = photos / max(row.warm), photos / min(row.warm)
    ends = [LABELS + scale * one for one in (slowest, fastest)]
    middle = y + BAR / 2
    name = row.title if row.second else f"{row.title}, cold"
    return (
        f'<text x="{LABELS - GAP}" y="{y + 14}" text-anchor="end">{escape(name)}</text>'
        f'<rect x="{LABELS}" y="{y}" width="{scale * rate:.1f}" height="{BAR}" '
        f'fill="{COLOURS[row.kind]}"/>'
        f'<path class="w" d="M{ends[0]:.1f} {middle}H{ends[1]:.1f}"/>'
        f'<text class="s" x="{ends[1] + GAP:.1f}" y="{y + 14}">{rate:.0f}</text>'
    )
