"""Peers of the worker, one per module: `python -m benchmarks.peers.<name>`.

Each is written as a competent user of its library would write it. All decode and insert with `common.py`, so they
differ only in the measured part. Each starts at the beginning of the topic, and may hold rows back for
`common.LINGER_SECONDS` to fill a batch.
"""

READY = "bench: reading"
"""Line that a contender without a consumer group prints when it begins to read."""
