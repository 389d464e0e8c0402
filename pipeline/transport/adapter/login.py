"""Address, TLS context and login of a consumer, in the form that aiokafka takes."""

import asyncio
from typing import Any

from aiokafka.abc import AbstractTokenProvider
from aiokafka.errors import KafkaConnectionError

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


def client_options(settings: KafkaSettings) -> dict[str, Any]:
    """Return the keyword arguments that all of aiokafka's clients share."""
    options: dict[str, Any] = {
        "bootstrap_servers": [server.strip() for server in settings.bootstrap_servers.split(",")],
        "client_id": "chimera",
        "security_protocol": settings.security_protocol,
    }
    if settings.tls:
        options["ssl_context"] = tls.client_context(settings)
    if settings.oauth_token_url:
        options |= {"sasl_mechanism": "OAUTHBEARER", "sasl_oauth_token_provider": TokenProvider(Tokens(settings))}
    elif settings.sasl:
        options |= {
            "sasl_mechanism": settings.sasl_mechanism,
            "sasl_plain_username": settings.user,
            "sasl_plain_password": settings.password.get_secret_value(),
        }
    return options
