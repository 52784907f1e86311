import sys

import pytest

import mlproject
from mlproject import inference
from mlproject.errors import UserError
from mlproject.versions import ready_weights, registration
from tests.conftest import photo
from tests.support.lakes import add_image, day


def test_there_are_a_thousand_unique_labels_and_torch_is_not_imported():
    labels = ready_weights.imagenet_labels()
    assert 1000 == len(labels) == len(set(labels))
    assert ("tench", "toilet tissue") == (labels[0], labels[-1])
    assert "torchvision" not in sys.modules


def test_a_network_is_compared_on_images_of_the_lake_and_on_drawn_ones_where_it_has_none(lake):
    config = registration.config("keras")
    drawn = ready_weights._parity_images(lake, config)
    contents = [photo((80 * number, 9, 9)) for number in range(3)]
    for number, content in enumerate(contents):
        add_image(lake, f"/{number}.jpg", content, day(1))
    decoded, _ = inference.decode_all(contents, config)
    squares = ready_weights._parity_images(lake, config)
    assert sorted(map(bytes, decoded)) == sorted(map(bytes, squares))
    assert (64, 3) == (len(drawn), len(squares))


@pytest.mark.parametrize(
    ("framework", "options", "expected"),
    [
        ("torch", {"weights": "nowhere.pth"}, "no weights file 'nowhere.pth'"),
        ("keras", {"weights": __file__}, "has another format"),
        ("jax", {}, "no framework 'jax'"),
        ("torch", {"image_size": 8}, "image_size >= 32"),
        ("keras", {"engine": "tensorrt"}, "no engine 'tensorrt'"),
    ],
)
def test_what_cannot_be_registered_is_refused_before_a_framework_is_imported(
    store, monkeypatch, framework, options, expected
):
    monkeypatch.delattr(ready_weights, "process")
    with pytest.raises(UserError, match=expected):
        mlproject.register(framework, **options)
