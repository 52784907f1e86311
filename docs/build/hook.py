"""MkDocs calls these while it builds the site: generated parts, and the list of decisions."""

import sys
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).parents[2]
sys.path[:0] = [str(PROJECT / "src"), str(PROJECT)]  # MkDocs adds the folder of this file

import reference  # noqa: E402 - it imports what lies there


def on_config(config: Any) -> Any:
    """Puts the decisions into the navigation, below the page that lists them."""
    pages = [{title: f"decisions/{path.name}"} for path, title in reference.decision_titles()]
    for part in config.nav:
        for entry in part.get("Explanation", []) if isinstance(part, dict) else []:
            if isinstance(entry, dict) and "Decisions" in entry:
                entry["Decisions"] = [*entry["Decisions"], *pages]
    return config


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Puts the generated parts into a page."""
    return reference.with_parts(markdown)
