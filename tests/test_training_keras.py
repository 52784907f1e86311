from pathlib import Path

import numpy as np
import pytest
from training_checks import check_log, check_serving, draw, fill, inputs, trained

from mlproject.training import SCRATCH

pytestmark = [pytest.mark.keras, pytest.mark.spark]


@pytest.fixture(scope="module")
def drawn(spark, store, tmp_path_factory):
    """A network from scratch on the drawn set: (lake, version, run, result)."""
    folder = tmp_path_factory.mktemp("drawn")
    lake = str(folder / "lake")
    version = fill(spark, lake, draw(folder / "images"))
    run, result = trained(spark, lake, folder / "scratch", version, "keras", "none")
    return lake, version, run, result


def answers(result, contents):
    import keras

    side = result.config["crop"]
    network = keras.applications.MobileNetV2(
        weights=None,
        classes=len(result.labels),
        alpha=result.config["width"],
        input_shape=(side, side, 3),
    )
    network.load_weights(result.weights)
    return np.asarray(network(inputs(contents, result.config), training=False))


def arrays(path: Path) -> dict[str, np.ndarray]:
    import keras

    network = keras.applications.MobileNetV2(weights=None, classes=4, input_shape=(64, 64, 3))
    network.load_weights(path)
    return {weight.path: weight.numpy() for weight in network.weights}


def is_late(name: str) -> bool:
    return name.startswith(("block_15", "block_16", "Conv_1", "predictions"))


def test_from_scratch_nine_of_ten_drawn_images_are_told_right(drawn):
    _, _, _, result = drawn
    assert result.held_out_accuracy >= 0.9
    assert ("desert", "forest", "ocean", "sunset") == result.labels
    assert 1 == result.left_out  # the truncated file: only decoding finds it out


def test_the_run_holds_parameters_curves_figures_and_lineage(drawn):
    lake, version, run, result = drawn
    check_log(run, result, f"{lake}/images", version, epochs=SCRATCH.epochs)


def test_the_saved_weights_do_as_well_in_serving(spark, drawn):
    lake, _, _, result = drawn
    check_serving(spark, lambda contents: answers(result, contents), result, f"{lake}/images")


def test_fine_tuning_changes_the_last_blocks_and_leaves_the_rest(spark, drawn, tmp_path):
    lake, version, _, result = drawn
    run, tuned = trained(
        spark,
        lake,
        tmp_path,
        version,
        "keras",
        str(result.weights),
        epochs=2,
        image_size=64,
        fine_tune_blocks=2,
        fine_tune_epochs=1,
    )
    check_log(run, tuned, f"{lake}/images", version, epochs=3)
    check_serving(spark, lambda contents: answers(tuned, contents), tuned, f"{lake}/images")
    assert tuned.held_out_accuracy >= 0.9
    before, after = arrays(result.weights), arrays(tuned.weights)
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert changed
    assert all(is_late(name) for name in changed), changed
    assert not any("moving_" in name for name in changed)


def test_the_head_alone_tells_real_flowers_apart(spark, store, shared, tmp_path):
    lake = str(tmp_path / "lake")
    version = fill(spark, lake, shared / "flowers5")
    weights = next((shared / "weights" / "keras").glob("*imagenet_ptq.weights.h5"))
    run, result = trained(spark, lake, tmp_path / "scratch", version, "keras", str(weights))
    assert result.held_out_accuracy >= 0.8
    check_log(run, result, f"{lake}/images", version, epochs=30)
