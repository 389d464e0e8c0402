"""Keys of the records in the state topic.

A record is a chunk of a snapshot or its manifest. Its key names the owner of the snapshot: consumer group (each group
has its own stored rows and closings), id of the source topic, source partition, writer and slot. The last part of the
key is the number of the chunk or the word manifest:

    chimera/Kq3mXo5pQ0uWm0n0aD2x7A/5/9f86d081a3b1c2d4.1/manifest
"""

from typing import NamedTuple
from urllib.parse import quote, unquote

MANIFEST = "manifest"


class Key(NamedTuple):
    """Key of a record in the state topic."""

    group: str
    topic_id: str
    partition: int
    slot: str
    """Writer and slot number."""
    part: str
    """Number of a chunk, or `MANIFEST`."""

    def __bytes__(self) -> bytes:
        """Encode the key."""
        parts = self._replace(topic_id=quote(self.topic_id, safe=""))  # Kafka's ids may have slashes
        return "/".join(map(str, parts)).encode()

    @classmethod
    def parse(cls, key: bytes) -> "Key | None":
        """Decode a key; None if it isn't a key of this format."""
        try:
            group, topic_id, partition, slot, part = key.decode().rsplit("/", 4)  # a group's name may have slashes
            parsed = cls(group, unquote(topic_id), int(partition), slot, part)
        except ValueError:
            return None
        return parsed if part == MANIFEST or part.isdecimal() else None
