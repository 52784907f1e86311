from pathlib import Path

import pytest
from PIL import Image

from mlproject import inference
from mlproject.training import drawn_images

CONFIG = {"resize": 73, "crop": 64, **inference.DEFAULTS}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn")
    drawn_images.draw(folder, images=64)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_the_same_seed_draws_the_same_bytes_and_another_seed_others(tmp_path):
    for name, seed in (("one", 3), ("two", 3), ("other", 4)):
        drawn_images.draw(tmp_path / name, images=8, seed=seed)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert contents(tmp_path / "one") != contents(tmp_path / "other")


def test_a_complete_set_is_kept_and_an_incomplete_one_completed(tmp_path):
    drawn_images.draw(tmp_path, images=8)
    whole = contents(tmp_path)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*")}
    (tmp_path / "ocean" / "ocean_0001.jpg").unlink()
    (tmp_path / "forest" / "forest_0000.jpg").write_bytes(b"somebody's own")
    drawn_images.draw(tmp_path, images=8)
    assert contents(tmp_path) == {**whole, "forest/forest_0000.jpg": b"somebody's own"}
    kept = [path for path in times if path.name not in ("ocean_0001.jpg", "forest_0000.jpg")]
    assert [times[path] for path in kept] == [path.stat().st_mtime_ns for path in kept]


def test_four_labels_have_equally_many_images_of_several_formats_modes_and_sizes(drawn):
    assert ["desert", "forest", "ocean", "sunset"] == sorted(path.name for path in drawn.iterdir())
    formats, modes, sizes, orientations = set(), set(), set(), set()
    for folder in drawn.iterdir():
        paths = sorted(folder.glob(f"{folder.name}_*"))
        assert 16 == len(paths)
        for path in paths:
            with Image.open(path) as image:
                formats.add(image.format)
                modes.add(image.mode)
                sizes.add(image.size)
                orientations.add(image.getexif().get(drawn_images.EXIF_ORIENTATION, 1))
    assert {"JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"} == formats
    assert {"RGB", "RGBA", "P", "LA", "CMYK"} <= modes
    assert {1, 3, 6, 8} == orientations
    assert len(sizes) > 32


def test_every_image_decodes_upright_and_each_broken_file_has_an_error_code(drawn):
    for path, content in contents(drawn).items():
        square, error = inference.decode(content, CONFIG)
        broken = Path(path).name in drawn_images.BROKEN
        assert (square is None, bool(error)) == (broken, broken), path
        if "forest_" in path and square is not None:  # the haze above is lighter than the trees
            assert square[:20].mean() > square[40:].mean(), path


def test_duplicates_have_the_bytes_of_another_file(drawn):
    files = contents(drawn)
    for name in (name for name in files if "copy_" in name):
        label = Path(name).parent.name
        assert files[f"{label}/{label}_0000.jpg"] == files[name]
    assert drawn_images.DUPLICATES == sum("copy_" in name for name in files)
