"""The keyed hash that replaces a value: equal values have equal hashes, and guessing a value needs the key."""

import hashlib

from pipeline.config import PrivacySettings, env_name
from pipeline.errors import ConfigError

_BLOCK = 64  # block of SHA-256, in bytes
_INNER, _OUTER = 0x36, 0x5C  # padding bytes of RFC 2104


class Hasher:
    """HMAC-SHA-256 with one key. The key is hashed once; copying that state is faster than `hmac.digest`.

    Args:
        key: the secret, of any length.
    """

    def __init__(self, key: bytes) -> None:
        self.key_block = (hashlib.sha256(key).digest() if len(key) > _BLOCK else key).ljust(_BLOCK, b"\0")
        """The key as RFC 2104 pads it, 64 bytes."""
        self._inner = hashlib.sha256(bytes(byte ^ _INNER for byte in self.key_block))
        self._outer = hashlib.sha256(bytes(byte ^ _OUTER for byte in self.key_block))

    def digest(self, text: str) -> str:
        """Hash a text: 64 hexadecimal digits."""
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(text.encode())
        outer.update(inner.digest())
        return outer.hexdigest()

    def mask(self, text: str) -> dict[str, str | int]:
        """Replacement of a text: its hash, and its length in characters."""
        return {"len": len(text), "sha256": self.digest(text)}

    def masked(self, text: str) -> bytes:
        """The replacement of `mask` as canonical JSON."""
        # Not by orjson: it returns the beginning of a longer allocation, whose rest stays free.
        return b'{"len":%d,"sha256":"%b"}' % (len(text), self.digest(text).encode())


def configured_hasher(settings: PrivacySettings) -> Hasher:
    """Return the hasher with the configured key.

    Raises:
        ConfigError: no key is configured; the message tells how to make one.
    """
    if settings.hash_key is None:
        raise ConfigError(
            f"{env_name('privacy', 'hash_key')}: expected a secret; make one with `openssl rand -hex 32` and keep it: "
            "hashes made with another key don't match"
        )
    return Hasher(settings.hash_key.get_secret_value().encode())
