"""TLS context and login of the worker's consumer, in the form that Faust and aiokafka take."""

import asyncio
from typing import Any

from aiokafka.abc import AbstractTokenProvider
from aiokafka.errors import KafkaConnectionError
from faust.auth import OAuthCredentials, SASLCredentials, SSLCredentials

from pipeline import tls
from pipeline.config import KafkaSettings
from pipeline.errors import ChimeraError
from pipeline.kafka.oauth import Tokens


class TokenProvider(AbstractTokenProvider):
    """Tokens for aiokafka. Without a token, aiokafka retries as if the broker were away.

    Args:
        tokens: source of the tokens.
    """

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens

    async def token(self) -> str:
        """Return a valid token.

        Raises:
            KafkaConnectionError: the issuer gives none.
        """
        try:
            return await asyncio.to_thread(self._tokens.token)
        except ChimeraError as error:
            raise KafkaConnectionError(str(error)) from None


def faust_credentials(settings: KafkaSettings) -> Any:
    """Return the credentials that Faust passes to aiokafka; None for a broker without TLS and login."""
    context = tls.client_context(settings) if settings.tls else None
    if settings.oauth_token_url:
        return OAuthCredentials(oauth_cb=TokenProvider(Tokens(settings)), ssl_context=context)
    if settings.sasl:
        return SASLCredentials(
            username=settings.user,
            password=settings.password.get_secret_value(),
            ssl_context=context,
            mechanism=settings.sasl_mechanism,
        )
    return context and SSLCredentials(context)
