"""Hostile and large images: an answer or a code, and never more than 300 MB for one of them."""

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from mlproject import inference

CONFIG = {**inference.DEFAULTS, "resize": 256, "crop": 224}
EXTRA_MEMORY_BYTES = 300_000_000

# Decodes each file named on stdin in a fork of its own; prints what it answered and its extra
# peak memory. A fork starts with the peak of what it shares, so the difference is the file's.
MEASURE = """
import json, os, resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import inference
inference.decode(b"GIF89a", dict(json.loads(sys.argv[2])))  # loads Pillow's plugins
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
for name in json.load(sys.stdin):
    reader, writer = os.pipe()
    if not os.fork():
        content = Path(name).read_bytes()
        before = peak()
        pixels, error = inference.decode(content, json.loads(sys.argv[2]))
        shape = None if pixels is None else list(pixels.shape)
        os.write(writer, json.dumps([name, shape, error, peak() - before]).encode())
        os._exit(0)
    _, status = os.wait()
    os.close(writer)
    print(os.read(reader, 10000).decode() if status == 0 else json.dumps([name, None, "died", 0]))
    os.close(reader)
"""


def measured(paths):
    source = str(Path(inference.__file__).parents[1])
    answer = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", MEASURE, source, json.dumps(CONFIG)],
        input=json.dumps([str(path) for path in paths]),
        capture_output=True,
        text=True,
        check=True,
    )
    return [json.loads(line) for line in answer.stdout.splitlines()]


def test_each_hostile_file_gives_an_image_or_an_error_code_within_300_mb(shared):
    hostile = shared / "hostile"
    with (hostile / "MANIFEST.csv").open(encoding="utf-8") as manifest:
        paths = [hostile / row["file"] for row in csv.DictReader(manifest)]
    rows = measured(paths)
    assert len(rows) == len(paths)
    answers = {name: (shape, error) for name, shape, error, _ in rows}
    odd = {
        name: answer
        for name, answer in answers.items()
        if answer != ([224, 224, 3], "")
        and not (answer[0] is None and answer[1] in inference.ERRORS)
    }
    assert odd == {}
    assert {name: extra for name, _, _, extra in rows if extra > EXTRA_MEMORY_BYTES} == {}


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("rgba.png", ""),
        ("grey16.png", ""),
        ("small.webp", ""),
        ("large.webp", "too_many_pixels"),
        ("baseline.jpg", ""),
        ("progressive.jpg", "too_many_pixels"),
        ("one_strip.tif", ""),
    ],
)
def test_large_images_take_less_than_300_mb_or_are_refused(tmp_path, name, error):
    near = (7071, 7071)  # 49,999,041 pixels, just below the default limit
    draw = {
        "rgba.png": lambda: (Image.new("RGBA", near, (200, 10, 10, 128)), {"compress_level": 1}),
        "grey16.png": lambda: (Image.new("I;16", near, 40000), {"compress_level": 1}),
        "small.webp": lambda: (Image.new("RGB", (3870, 3870), "red"), {"method": 0}),
        "large.webp": lambda: (Image.new("RGB", (4000, 4000), "red"), {"method": 0}),
        "baseline.jpg": lambda: (Image.new("RGB", near, "red"), {}),
        "progressive.jpg": lambda: (Image.new("RGB", near, "red"), {"progressive": True}),
        "one_strip.tif": lambda: (
            Image.new("RGB", (5700, 5700), "red"),
            {"compression": "tiff_lzw", "tiffinfo": {278: 5700}},
        ),
    }
    image, options = draw[name]()
    image.save(tmp_path / name, **options)
    del image
    [(_, shape, answered, extra)] = measured([tmp_path / name])
    assert (shape, answered) == (None if error else [224, 224, 3], error)
    assert extra < EXTRA_MEMORY_BYTES


def test_a_decompression_bomb_is_refused_whatever_the_warning_filter():
    bomb = io.BytesIO()
    Image.new("1", (12_000, 12_000)).save(bomb, "PNG")
    code = "import io, sys; sys.path.insert(0, sys.argv[1]); import inference\n"
    code += "file = io.BytesIO(sys.stdin.buffer.read())\nprint(inference.header(file).error)"
    source = str(Path(inference.__file__).parents[1])
    for flag in ("error", "ignore"):
        answer = subprocess.run(
            [sys.executable, "-W", flag, "-c", code, source],
            input=bomb.getvalue(),
            capture_output=True,
            check=True,
        )
        assert answer.stdout.split() == [b"too_many_pixels"]
