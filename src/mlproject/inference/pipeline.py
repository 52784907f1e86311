"""Batches of decoded images: one after the other, or decoded while the one before is computed."""

from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from .decode import decode_all

Decoded = tuple[np.ndarray, list[str]]  # as `decode_all` returns it


def decoded_batches(
    contents: Sequence[bytes | None],
    config: Mapping[str, Any],
    size: int,
    *,
    threads: int = 1,
    ahead: bool = False,
) -> Generator[Decoded, None, None]:
    """The images of each batch, as `decode_all` returns them, in order.

    To be closed: an iterator that is left early ends once its background decoding has ended.

    Args:
        contents: N encoded images.
        config: See `decode`.
        size: Images of a batch, decodable or not.
        threads: Threads that decode a batch.
        ahead: Whether the next batch is decoded in the background while the caller uses one: then
            two batches are in memory, else one.
    """
    parts = [contents[start : start + size] for start in range(0, len(contents), size)]
    if not ahead or len(parts) < 2:
        for part in parts:
            yield decode_all(part, config, threads=threads)
        return
    with ThreadPoolExecutor(1) as background:
        next_batch = background.submit(decode_all, parts[0], config, threads=threads)
        for part in parts[1:]:
            batch = next_batch.result()
            next_batch = background.submit(decode_all, part, config, threads=threads)
            yield batch
        yield next_batch.result()
