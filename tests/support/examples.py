"""The examples of README and docs: blocks of bash and Python, and how they are to be run."""

import re
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).parents[2]
PAGES = (PROJECT / "README.md", *sorted((PROJECT / "docs").rglob("*.md")))
RUN = ("bash", "python")
OTHERS = ("ini", "text")  # languages of blocks that nobody runs
BLOCK = re.compile(
    r"(?:^<!-- (?P<marker>[^\n]*) -->\n)?^```(?P<language>[^\n]*)\n(?P<code>.*?)^```$", re.M | re.S
)


@dataclass(frozen=True)
class Example:
    """A block of a page; a comment in the line before it says how it is run.

    `<!-- 20 times -->` runs it so often; `<!-- not run: REASON -->` leaves it out.
    """

    page: str
    line: int
    language: str
    marker: str
    code: str

    @property
    def times(self) -> int:
        if self.marker.startswith("not run: "):
            return 0
        found = re.fullmatch(r"(\d+) times", self.marker)
        return int(found[1]) if found else 1


def examples(page: Path) -> list[Example]:
    """The blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    return [
        Example(
            str(page.relative_to(PROJECT)),
            text.count("\n", 0, found.start("language")) + 1,
            found["language"],
            found["marker"] or "",
            found["code"],
        )
        for found in BLOCK.finditer(text)
    ]
