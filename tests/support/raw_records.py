"""Records as no client library writes them, which a broker takes nevertheless."""

import asyncio
import gzip
from collections.abc import Sequence
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.record.util import calc_crc32c

from pipeline.config import KafkaSettings

_PLACE = "X" * 16  # is replaced by the name, which makes the length of a name what it is
_LENGTH, _CRC, _ATTRIBUTES, _RECORDS = slice(8, 12), slice(17, 21), slice(21, 23), 61  # in a batch of records
_GZIP = 1


def produce_with_header(
    kafka: KafkaSettings, topic: str, values: Sequence[bytes], name: bytes, *, compressed: bool = False
) -> None:
    """Send these in one batch to the first partition, each with a header whose name is these bytes.

    Args:
        kafka: the broker.
        topic: where to.
        values: of the records.
        name: 16 bytes, of any kind.
        compressed: with gzip.
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
