"""The split of images into those for training and those for evaluation only, by their ids."""

import hashlib
from collections.abc import Mapping

HELD_OUT = 0.2  # share of the images that are only for evaluation, as usual for small sets


def held_out(labels: Mapping[str, str]) -> frozenset[str]:
    """The image_ids for evaluation only: about a fifth, some of each label but never all.

    The choice depends on the id of each image, so that new images do not change it for others,
    except in very small labels. `labels`, by image_id, has at least two images for each.
    """
    by_label: dict[str, list[str]] = {}
    for image_id in sorted(labels, key=place):
        by_label.setdefault(labels[image_id], []).append(image_id)
    chosen: set[str] = set()
    for ids in by_label.values():
        below = sum(place(image_id) < HELD_OUT for image_id in ids)
        chosen.update(ids[: min(max(below, 1), len(ids) - 1)])
    return frozenset(chosen)


def place(image_id: str) -> float:
    """A number in 0..1 that depends only on the image.

    It is hashed again with a prefix, because the leading digits of the id may define other splits.
    """
    digest = hashlib.sha256(f"held-out:{image_id}".encode()).digest()
    return float(int.from_bytes(digest[:8], "big") / 2**64)
