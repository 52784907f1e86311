"""What `score` is compared with: each module runs one or more peers as a process of its own.

    python -m peers.NAME --version FOLDER --out FOLDER

A process reads the lake in its working directory, lets the peer predict every image twice, writes
label and score of each image to Parquet files, and prints the seconds of both runs as JSON.
"""
