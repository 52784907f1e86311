from pathlib import Path

import numpy as np
import pytest
from training_checks import check_log, check_serving, draw, fill, inputs, trained

from mlproject import examples, onboard, versions
from mlproject.errors import UserError
from mlproject.training import SCRATCH

pytestmark = [pytest.mark.torch, pytest.mark.spark]


@pytest.fixture(scope="module")
def drawn(spark, store, tmp_path_factory):
    """A network from scratch on the drawn set: (lake, version, run, result)."""
    folder = tmp_path_factory.mktemp("drawn")
    lake = str(folder / "lake")
    version = fill(spark, lake, draw(folder / "images"))
    run, result = trained(spark, lake, folder / "scratch", version, "torch", "none")
    return lake, version, run, result


def answers(result, contents):
    import torch
    import torchvision
    from safetensors.torch import load_file

    network = torchvision.models.mobilenet_v2(
        num_classes=len(result.labels), width_mult=result.config["width"]
    )
    network.load_state_dict(load_file(result.weights), strict=True)
    images = torch.from_numpy(inputs(contents, result.config)).permute(0, 3, 1, 2)
    with torch.inference_mode():
        return network.eval()(images).softmax(dim=1).numpy()


def arrays(path: Path) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    return load_file(path)


def is_late(name: str) -> bool:
    return name.startswith(("features.16", "features.17", "features.18", "classifier"))


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
        "torch",
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
    assert not any("running_" in name for name in changed)


def test_the_head_alone_tells_real_flowers_apart(spark, store, shared, tmp_path):
    lake = str(tmp_path / "lake")
    version = fill(spark, lake, shared / "flowers5")
    weights = next((shared / "weights" / "torch").glob("*torchvision_names.pth"))
    run, result = trained(spark, lake, tmp_path / "scratch", version, "torch", str(weights))
    assert result.held_out_accuracy >= 0.75
    check_log(run, result, f"{lake}/images", version, epochs=30)


def test_images_under_two_labels_or_unreadable_are_left_out_and_counted(spark, tmp_path):
    folder = draw(tmp_path / "images", images=40)
    (folder / "ocean" / "twice.jpg").write_bytes((folder / "desert/desert_0001.jpg").read_bytes())
    lake = str(tmp_path / "lake")
    fill(spark, lake, folder)
    table = spark.read.format("delta").load(f"{lake}/images")
    found = examples.labelled(table)
    assert found.ambiguous == 1
    config = versions.config("torch", image_size=32)
    data = examples.load(table, found.labels, config, tmp_path / "scratch")
    assert 40 == len(data.image_ids)  # 40 pictures, less the one, and the truncated file
    assert len(data.training) + len(data.held_out) == 39
    assert not set(data.training) & set(data.held_out)
    for row in (*data.training[:5], *data.held_out):
        content = table.where(table.image_id == data.image_ids[row]).first().content
        square, _ = onboard.decode(content, config)
        np.testing.assert_array_equal(square, data.pixels[row])


def test_wrong_settings_and_unlabelled_tables_are_refused_before_training(spark, store, tmp_path):
    lake = str(tmp_path / "lake")
    version = fill(spark, lake, draw(tmp_path / "images", images=4))
    with pytest.raises(UserError, match=r"Label '\w+' has one photo"):
        trained(spark, lake, tmp_path, version, "torch", "none")
    with pytest.raises(UserError, match="fine_tune_blocks must be from 0 to 17"):
        trained(spark, lake, tmp_path, version, "torch", "none", fine_tune_blocks=18)
    with pytest.raises(UserError, match="no framework 'jax'"):
        trained(spark, lake, tmp_path, version, "jax", "none")
