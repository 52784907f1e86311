"""Files as tasks read them, in processes that may take little memory."""

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from PIL import Image

from mlproject.images.image_files import Reading, in_batches, read_file
from mlproject.storage import object_storage
from tests.conftest import photo

GB = 1024**3

# The memory that a process may take beside what it has when all is imported.
READ = """
import resource, sys
from mlproject.images.image_files import Reading, read_file
from mlproject.storage import object_storage
path, size, more = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + more, used + more))
listed = {"path": path, "size_bytes": size, "modified_at": None, "label": None}
row, reason = read_file(object_storage.reader("/"), listed, Reading("/"))
print(row["format"], row["width"], row["height"], row["error"], row["content"], reason)
"""


def facts(path: Path, more: int = 150_000_000) -> str:
    words = [sys.executable, "-c", READ, str(path), str(path.stat().st_size), str(more)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert 0 == done.returncode, done.stderr
    return done.stdout.strip()


def sparse(path: Path, start: bytes, size: int) -> Path:
    with path.open("wb") as file:
        file.write(start)
        file.truncate(size)
    return path


def test_a_file_of_3_gb_is_hashed_with_little_memory(tmp_path):
    file = sparse(tmp_path / "big.jpg", photo((1, 2, 3)), 3 * GB)
    assert "JPEG 48 40 None None" == facts(file)


def test_the_size_of_a_3_gb_tiff_is_read_from_any_place_of_its_header(tmp_path):
    image = tmp_path / "small.tif"
    Image.new("RGB", (30, 20)).save(image)
    file = sparse(tmp_path / "big.tif", image.read_bytes(), 3 * GB)
    assert "TIFF 30 20 None None" == facts(file)


def test_a_large_file_that_is_not_an_image_has_that_error(tmp_path):
    file = sparse(tmp_path / "big.jpg", b"no image", GB)
    assert "None None None unsupported_format None" == facts(file)


def test_a_large_image_whose_header_needs_all_its_bytes_is_not_read_whole(tmp_path):
    small = tmp_path / "small.webp"
    Image.new("RGB", (30, 20)).save(small, lossless=True)
    content = small.read_bytes()
    file = sparse(tmp_path / "big.webp", content, GB)
    assert "None None None too_many_bytes None" == facts(file)


@pytest.mark.parametrize(("inline_bytes", "there"), [(10_000, True), (100, False), (-1, False)])
def test_only_files_up_to_the_limit_are_stored_with_their_content(tmp_path, inline_bytes, there):
    content = photo((1, 2, 3))
    (tmp_path / "a.jpg").write_bytes(content)
    listed = {
        "path": str(tmp_path / "a.jpg"),
        "size_bytes": len(content),
        "modified_at": None,
        "label": None,
    }
    read = object_storage.reader(str(tmp_path))
    row, _ = read_file(read, listed, Reading("/", inline_bytes, 16))
    assert (content if there else None) == row["content"]
    assert ("JPEG", 48, 40, None) == (row["format"], row["width"], row["height"], row["error"])
    assert row["thumbnail"].startswith(b"\xff\xd8")


def test_batches_are_bounded_by_thumbnails_and_by_rows_too():
    schema = pa.schema([("content", pa.binary()), ("thumbnail", pa.binary())])
    thumbnails = ({"content": None, "thumbnail": bytes(100_000)} for _ in range(400))
    assert 3 == len(list(in_batches(thumbnails, schema)))
    bare = ({"content": None, "thumbnail": None} for _ in range(40_000))
    assert 3 == len(list(in_batches(bare, schema)))
