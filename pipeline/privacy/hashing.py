"""The keyed hash in place of what isn't stored: equal values stay equal, and nobody can try some without the key."""

import hmac

import orjson

from pipeline.config import PrivacySettings, env_name
from pipeline.errors import ConfigError


class Hasher:
    """HMAC-SHA-256 with one key.

    Args:
        key: the secret, of any length.
    """

    def __init__(self, key: bytes) -> None:
        self._keyed = hmac.new(key, digestmod="sha256")  # to copy it takes less than to begin with the key

    def digest(self, text: str) -> str:
        """The hash of a text, 64 hexadecimal digits."""
        keyed = self._keyed.copy()
        keyed.update(text.encode())
        return keyed.hexdigest()

    def mask(self, text: str) -> dict[str, str | int]:
        """What is stored in place of a text: its hash, and its length in characters."""
        return {"len": len(text), "sha256": self.digest(text)}

    def masked(self, text: str) -> bytes:
        """The same, as canonical JSON."""
        return orjson.dumps(self.mask(text))


def configured_hasher(settings: PrivacySettings) -> Hasher:
    """The hasher with the key of the settings.

    Raises:
        ConfigError: there is no key; says how to make one.
    """
    if settings.hash_key is None:
        raise ConfigError(
            f"{env_name('privacy', 'hash_key')}: expected a secret; make one with `openssl rand -hex 32` and keep it: "
            "hashes made with another key don't match"
        )
    return Hasher(settings.hash_key.get_secret_value().encode())
