import sys

from mlproject.versions import imagenet


def test_there_are_a_thousand_unique_labels_and_torch_is_not_imported():
    labels = imagenet.labels()
    assert 1000 == len(labels) == len(set(labels))
    assert ("tench", "toilet tissue") == (labels[0], labels[-1])
    assert "torchvision" not in sys.modules
