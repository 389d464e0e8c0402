"""One contender a module, each as a competent user of its library would write it: `python -m benchmarks.peers.<name>`.

What all of them need, decoding and inserting, is in `common.py`, so that they differ in what is measured. Each
starts at the beginning of the topic, and may hold rows back for `common.LINGER_SECONDS` to fill a batch.
"""

READY = "bench: reading"
"""What a contender without a consumer group prints when it begins to read; of the others the broker knows."""
