import sys

from mlproject.versions import ready_weights


def test_there_are_a_thousand_unique_labels_and_torch_is_not_imported():
    labels = ready_weights.imagenet_labels()
    assert 1000 == len(labels) == len(set(labels))
    assert ("tench", "toilet tissue") == (labels[0], labels[-1])
    assert "torchvision" not in sys.modules
