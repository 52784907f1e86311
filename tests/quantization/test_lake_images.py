"""Which images int8 is calibrated on, and which both networks are measured on."""

import numpy as np
import pytest

from mlproject.images import splits
from mlproject.quantization import lake_images
from tests.conftest import photo
from tests.support.lakes import add_image, day


def decode(contents):
    """The length of each image in place of its pixels; one that is broken is left out."""
    whole = [content for content in contents if content.startswith(b"\xff\xd8")]
    return np.array([[[[len(one) % 256] * 3]] for one in whole], np.uint8), [""] * len(contents)


@pytest.fixture
def ids(lake):
    """label -> image_ids: 40 roses, 40 photos in a folder that is no label, one tulip, 40 bare."""
    counts = {"rose": 40, "2024-05": 40, "tulip": 1, None: 40}
    seeds = iter(range(1000))
    return {
        label: {
            add_image(lake, f"/{label}/{n}.jpg", photo((9, 9, 9), next(seeds)), day(1), label=label)
            for n in range(count)
        }
        for label, count in counts.items()
    }


def test_no_image_is_calibrated_on_and_measured_on_and_none_is_left_out(lake, ids):
    add_image(lake, "/broken.jpg", b"no photo", day(1))
    split = lake_images.split(lake, ["rose", "tulip", "daisy"])
    held_out = lake_images.held_out_images(lake, split, 0, decode)
    others = lake_images.calibration_images(lake, split, 0, decode)
    assert 121 == len(held_out.squares) + len(others)
    assert len(held_out.squares) == len(held_out.image_ids) == len(held_out.paths)
    assert all(map(split.is_held_out, held_out.image_ids))


def test_the_split_is_that_of_training_for_labels_of_the_version_and_else_in_halves(lake, ids):
    split = lake_images.split(lake, ["rose", "tulip", "daisy"])
    measured = {label: {one for one in ids[label] if split.is_held_out(one)} for label in ids}
    assert measured["rose"] == splits.held_out(dict.fromkeys(ids["rose"], "rose"))
    assert 2 <= len(measured["rose"]) <= 16
    assert all(10 <= len(measured[label]) <= 30 for label in ("2024-05", None))
    assert {"rose"} == set(split.labels.values())  # training refuses a label with one image
    held_out = lake_images.held_out_images(lake, split, 0, decode)
    labels = dict(zip(held_out.image_ids, held_out.labels, strict=True))
    assert measured["rose"] == {image_id for image_id, label in labels.items() if label}


def test_a_seed_draws_the_same_images_each_time_and_at_most_so_many(lake, ids, monkeypatch):
    monkeypatch.setattr(lake_images, "IMAGES", 10)
    split = lake_images.split(lake, [])
    drawn = [lake_images.held_out_images(lake, split, seed, decode).paths for seed in (1, 1, 2)]
    assert 10 == len(drawn[0])
    assert drawn[0] == drawn[1] != drawn[2]
