"""What uses every client of S3 in one process: words are a lake and a local source."""

# An ingest writes through delta-rs and pyarrow, an obstore reads, and Spark reads Delta.
USES_ALL = """
import sys
from mlproject.ingestion import new_images, source_listing
from mlproject.integrations.spark_session import session
from mlproject.lake import location, queries, snapshots
from mlproject.storage import object_storage
lake = location.locate_to_write(sys.argv[1])
with session("all", lake=lake) as spark:
    listing = source_listing.listing(sys.argv[2], settle=0)
    new_images.ingest_pending(spark, lake, listing)
    images = snapshots.required(lake, "images")
    file = f"{images.path}/{queries.plain_files(images)[0]['path']}"
    start = next(object_storage.blocks(file))[:4].decode()
    print(images.read(spark).select("path").distinct().count(), start)
"""
