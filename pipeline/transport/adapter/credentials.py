"""TLS context and login of the worker's consumer, in the form that Faust takes."""

from typing import Any

from faust.auth import OAuthCredentials, SASLCredentials, SSLCredentials

from pipeline import tls
from pipeline.config import KafkaSettings
from pipeline.kafka.oauth import Tokens
from pipeline.transport.adapter.login import TokenProvider


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
