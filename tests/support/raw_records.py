"""Records that no client library writes, but a broker accepts."""

import asyncio
import gzip
from collections.abc import Sequence
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.record.util import calc_crc32c

from pipeline.config import KafkaSettings

_PLACE = "X" * 16  # placeholder of the same length as the name
_LENGTH, _CRC, _ATTRIBUTES, _RECORDS = slice(8, 12), slice(17, 21), slice(21, 23), 61  # positions in a record batch
_GZIP = 1


def produce_with_header(
    kafka: KafkaSettings, topic: str, values: Sequence[bytes], name: bytes, *, compressed: bool = False
) -> None:
    """Send values in one batch to partition 0, each with a header whose name has these bytes.

    Args:
        kafka: settings of the broker.
        topic: the topic.
        values: record values.
        name: any 16 bytes.
        compressed: compress with gzip.
    """
    asyncio.run(_produce(kafka.bootstrap_servers, topic, values, name, compressed))


async def _produce(servers: str, topic: str, values: Sequence[bytes], name: bytes, compressed: bool) -> None:
    async with AIOKafkaProducer(bootstrap_servers=servers) as producer:
        batch: Any = producer.create_batch()
        for value in values:
            batch.append(key=None, value=value, timestamp=None, headers=[(_PLACE, b"1")])
        batch.close()
        whole = bytearray(batch._build())
        records = bytes(whole[_RECORDS:]).replace(_PLACE.encode(), name)
        whole[_RECORDS:] = gzip.compress(records) if compressed else records
        whole[_ATTRIBUTES] = (_GZIP if compressed else 0).to_bytes(2, "big")
        whole[_LENGTH] = (len(whole) - _LENGTH.stop).to_bytes(4, "big")
        whole[_CRC] = calc_crc32c(bytes(whole[_ATTRIBUTES.start :])).to_bytes(4, "big")
        batch._buffer = whole
        await (await producer.send_batch(batch, topic, partition=0))
