"""Parts of the report and of the page of the gates."""

import re
from html.parser import HTMLParser


def changed_images(page: str) -> list[str]:
    """The HTML of each image that two versions predict differently, in the order of the page."""
    [gallery] = re.findall(r'<div class="gallery pairs">(.+?)(?=<h2|<footer)', page, re.DOTALL)
    return re.findall(r"<figure>(.+?)</figure>", gallery, re.DOTALL)


class Page(HTMLParser):
    """The tags of a page, the addresses that they load, and whether every tag is closed."""

    VOID = ("meta", "img", "br", "link", "input")

    def __init__(self, html):
        super().__init__()
        self.addresses, self.images, self.open, self.tags, self.text = [], [], [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        for name, value in attributes:
            if name in ("src", "href", "srcset", "action", "data"):
                self.addresses.append(value)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)
