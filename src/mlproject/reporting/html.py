"""HTML pages that load no other file and call no server, and their thumbnails."""

import base64
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import jinja2

from mlproject.images import stored_images
from mlproject.images.thumbnails import PIXELS, jpeg
from mlproject.lake.snapshots import Snapshot
from mlproject.masking import mask


def render(template: str, thumbnails: Mapping[str, bytes], **values: object) -> str:
    """A page made from a template, which finds the thumbnails (image_id -> JPEG) in base64."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_masked,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"when": _when, "percent": _percent, "number": _number}
    encoded = {key: base64.b64encode(jpeg).decode() for key, jpeg in thumbnails.items()}
    return environment.get_template(template).render(thumbnails=encoded, **values)


def pictures(images: Snapshot, rows: Iterable[Mapping[str, Any]]) -> dict[str, bytes]:
    """image_id -> JPEG of each image that can be read and decoded, from `stored_images.rows`."""
    made = stored_images.each(images, rows, partial(jpeg, side=PIXELS))
    return {image_id: found for image_id, found in made.items() if found is not None}


def _masked(value: object) -> object:
    """What a template prints of a value, before it is escaped."""
    return mask(value) if type(value) is str else value


def _when(micros: int) -> str:
    return f"{datetime.fromtimestamp(micros / 1e6, UTC):%Y-%m-%d %H:%M} UTC"


def _percent(share: float | None) -> str:
    """A share 0..1 with one decimal, never rounded up to all or down to nothing."""
    if share is None or share != share:  # noqa: PLR0124 - NaN alone differs from itself
        return "none"
    if share in (0, 1):
        return f"{share:.0%}".replace("%", " %")
    return f"{min(max(share * 100, 0.1), 99.9):.1f} %"


def _number(count: int) -> str:
    return f"{count:,}".replace(",", " ")
