"""Parts of the report and of the page of the gates."""

import re


def changed_images(page: str) -> list[str]:
    """The HTML of each image that two versions predict differently, in the order of the page."""
    [gallery] = re.findall(r'<div class="gallery pairs">(.+?)(?=<h2|<footer)', page, re.DOTALL)
    return re.findall(r"<figure>(.+?)</figure>", gallery, re.DOTALL)
