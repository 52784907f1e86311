"""The comparison of ONNX Runtime with a framework, on functions that stand for networks."""

import numpy as np
import pytest

from mlproject.errors import UserError
from mlproject.versions import engines

IMAGES = np.arange(40, dtype=np.uint8).reshape(40, 1, 1, 1)


def network(more=0.0, image=None):
    """0.5, 0.3, 0.2; the second has `more` for one image, the first less."""

    def forward(images):
        found = np.tile(np.float32([0.5, 0.3, 0.2]), (len(images), 1))
        changed = images[:, 0, 0, 0] == image
        found[changed] += np.float32([-more, more, 0])
        return found

    return forward


@pytest.mark.parametrize(
    ("found", "difference", "agreement", "reached"),
    [
        (network(), 0, 1, True),
        (network(5e-5, 7), 5e-5, 1, True),
        (network(2e-4, 39), 2e-4, 1, False),
        (network(0.15, 0), 0.15, 39 / 40, False),
        (network(np.nan, 3), np.nan, 1, False),
    ],
)
def test_one_image_of_all_decides(found, difference, agreement, reached):
    parity = engines.parity(network(), found, IMAGES)
    assert difference == pytest.approx(parity.max_difference, rel=1e-3, nan_ok=True)
    assert agreement == pytest.approx(parity.top1_agreement)
    assert reached == parity.is_reached


def test_of_labels_that_are_equally_likely_each_agrees():
    def even(more):
        return lambda images: np.tile(np.float32([0.4, 0.4 + more, 0.2]), (len(images), 1))

    assert engines.parity(even(0), even(2e-6), IMAGES).is_reached
    assert not engines.parity(even(-5e-5), even(2e-6), IMAGES).is_reached


def test_a_difference_in_batches_of_one_only_is_found():
    def alone(images):
        return network(0.1, 5)(images) if len(images) == 1 else network()(images)

    assert engines.parity(network(), alone, IMAGES).max_difference == pytest.approx(0.1)


def test_an_unknown_engine_is_one_line_with_those_there_are():
    with pytest.raises(UserError, match="'onnxruntime', 'native'"):
        engines.check("tensorrt")
