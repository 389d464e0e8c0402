"""OAuth tokens: fetched once, and renewed before they expire."""

from collections.abc import Iterator

import pytest
from pydantic import SecretStr
from support.oauth_issuer import CLIENT, LIFE_SECONDS, SECRET, Issuer

from pipeline.config import KafkaSettings
from pipeline.kafka.oauth import Tokens


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with Issuer() as running:
        yield running


@pytest.fixture
def kafka(issuer: Issuer) -> KafkaSettings:
    """Settings of a client that logs in with the issuer's tokens."""
    return KafkaSettings(
        security_protocol="SASL_SSL",
        sasl_mechanism="OAUTHBEARER",
        user=CLIENT,
        password=SecretStr(SECRET),
        oauth_token_url=f"{issuer.url}/token",
    )


def test_an_issuer_need_not_state_a_lifetime(kafka: KafkaSettings, issuer: Issuer) -> None:
    """A token without a lifetime counts as one of five minutes: it is renewed after four."""
    issuer.says_life = False
    now, given = 0.0, issuer.given
    tokens = Tokens(kafka, lambda: now)
    for seconds, fetched in ((0, 1), (239, 1), (242, 2)):
        now = seconds
        assert tokens.token()
        assert issuer.given == given + fetched


def test_a_token_is_used_for_most_of_its_life(kafka: KafkaSettings, issuer: Issuer) -> None:
    """A token is fetched once for many calls, and renewed before it expires."""
    now, given = 0.0, issuer.given
    tokens = Tokens(kafka, lambda: now)
    first = {tokens.token() for _ in range(3)}
    now = LIFE_SECONDS * 0.79
    assert {tokens.token()} == first
    assert issuer.given == given + 1
    now = LIFE_SECONDS * 0.81
    tokens.token()
    assert issuer.given == given + 2
