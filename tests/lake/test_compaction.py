import pytest

from mlproject.ingestion import new_images, source_listing
from mlproject.lake import compaction, spark_tables
from tests.conftest import photo

pytestmark = pytest.mark.spark


def files(spark, lake) -> int:
    return len(spark_tables.read(spark, lake, "images").inputFiles())


def add(spark, lake, source, number):
    (source / f"{number}.jpg").write_bytes(photo((1, 2, 3), number))
    new_images.ingest(spark, lake, source_listing.listing(str(source)))
    small = compaction.pays(f"{lake}/images", 64 * 1024**2)
    compaction.compact(spark, f"{lake}/images", 64 * 1024**2)
    return small


def test_small_files_are_put_together_when_they_are_many_and_not_again(spark, lake, tmp_path):
    (tmp_path / "source").mkdir()
    done = [add(spark, lake, tmp_path / "source", number) for number in range(12)]
    assert [0] * 9 + [1024**2] + [0] * 2 == done
    assert 3 == files(spark, lake)
    rows = spark_tables.read(spark, lake, "images")
    assert (12, 12) == (rows.count(), rows.select("image_id").distinct().count())


def test_files_of_a_quarter_of_the_wanted_size_are_left(spark, lake, tmp_path):
    (tmp_path / "source").mkdir()
    for number in range(11):
        (tmp_path / "source" / f"{number}.jpg").write_bytes(photo((1, 2, 3), number))
        new_images.ingest(spark, lake, source_listing.listing(str(tmp_path / "source")))
    compaction.compact(spark, f"{lake}/images", 4096)
    assert 11 == files(spark, lake)
