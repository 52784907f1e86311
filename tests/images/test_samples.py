from mlproject.images import samples
from tests.conftest import photo
from tests.support.lakes import add, add_image, day

PHOTOS = [photo((200, 9, 9), seed) for seed in range(30)]


def test_a_sample_is_random_and_the_same_for_a_seed(lake):
    for number, content in enumerate(PHOTOS):
        add_image(lake, f"/{number}.jpg", content, day(1))
    one, other = (samples.sample(lake, 10, seed) for seed in (1, 2))
    assert 10 == len(one) == len({image.image_id for image in one})
    assert one == samples.sample(lake, 10, 1)
    assert one != other
    assert {image.content for image in samples.sample(lake, 100)} == set(PHOTOS)


def test_unwanted_images_are_left_out(lake):
    ids = [
        add_image(lake, f"/{number}.jpg", content, day(1)) for number, content in enumerate(PHOTOS)
    ]
    half = set(ids[::2])
    drawn = list(samples.draw(lake, 100, 1, half.__contains__))
    assert half == {image.image_id for image in drawn}
    assert {f"/{number}.jpg" for number in range(0, 30, 2)} == {image.path for image in drawn}


def test_images_without_bytes_and_copies_are_left_out(lake, tmp_path):
    here, gone, changed = (tmp_path / f"{name}.jpg" for name in ("here", "gone", "changed"))
    for file in (here, gone, changed):
        file.write_bytes(PHOTOS[0] if file == here else b"other")
        add_image(lake, str(file), PHOTOS[0] if file == here else b"before", day(1), inline=False)
    gone.unlink()
    for name in ("a", "b"):
        add_image(lake, f"/{name}.jpg", PHOTOS[1], day(1))
    broken = {"path": "/c.jpg", "image_id": "1" * 64, "error": "too_many_bytes"}
    add(lake, "images", {**broken, "ingested_at": day(1)})
    assert set(PHOTOS[:2]) == {image.content for image in samples.sample(lake, 10)}


def test_a_lake_without_images_gives_none(lake):
    assert [] == samples.sample(lake, 10)
    add(lake, "images")
    assert [] == samples.sample(lake, 10)
