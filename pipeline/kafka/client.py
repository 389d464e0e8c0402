"""How Kafka's settings are said to the two clients: librdkafka's, and for the worker's consumer aiokafka's.

Both check the broker's certificate and its name, against the authority of the settings or those the system trusts.
"""

import ssl
from typing import TYPE_CHECKING, Any

from pipeline.kafka.oauth import Tokens

if TYPE_CHECKING:
    from pipeline.config import KafkaSettings


def librdkafka(settings: "KafkaSettings") -> dict[str, str | int]:
    """What every client of confluent-kafka is configured with; holds the secrets as they are."""
    config: dict[str, str | int] = {
        "bootstrap.servers": settings.bootstrap_servers,
        "client.id": "chimera",
        "security.protocol": settings.security_protocol,
    }
    if settings.tls and settings.ca_cert:
        config["ssl.ca.location"] = str(settings.ca_cert)
    if settings.tls and settings.client_cert:
        config["ssl.certificate.location"] = str(settings.client_cert)
        config["ssl.key.location"] = str(settings.client_key)
        config["ssl.key.password"] = settings.client_key_password.get_secret_value()
    if settings.sasl:
        config["sasl.mechanism"] = settings.sasl_mechanism
        config |= _oauth(settings) if settings.oauth_token_url else _login(settings)
    return config


def _login(settings: "KafkaSettings") -> dict[str, str | int]:
    return {"sasl.username": str(settings.user), "sasl.password": settings.password.get_secret_value()}


def _oauth(settings: "KafkaSettings") -> dict[str, str | int]:
    config: dict[str, str | int] = {
        "sasl.oauthbearer.method": "oidc",
        "sasl.oauthbearer.token.endpoint.url": str(settings.oauth_token_url),
        "sasl.oauthbearer.client.id": str(settings.user),
        "sasl.oauthbearer.client.secret": settings.password.get_secret_value(),
    }
    if settings.oauth_scope:
        config["sasl.oauthbearer.scope"] = settings.oauth_scope
    if settings.ca_cert:
        config["https.ca.location"] = str(settings.ca_cert)
    return config


def faust_credentials(settings: "KafkaSettings") -> Any:
    """What Faust hands on to aiokafka; None for a broker in plain text that asks for no login."""
    from faust.auth import OAuthCredentials, SASLCredentials, SSLCredentials  # noqa: PLC0415 (the tools need no Faust)

    context = ssl_context(settings) if settings.tls else None
    if settings.oauth_token_url:
        return OAuthCredentials(oauth_cb=Tokens(settings).for_aiokafka(), ssl_context=context)
    if settings.sasl:
        return SASLCredentials(
            username=settings.user,
            password=settings.password.get_secret_value(),
            ssl_context=context,
            mechanism=settings.sasl_mechanism,
        )
    return context and SSLCredentials(context)


def ssl_context(settings: "KafkaSettings") -> ssl.SSLContext:
    """What aiokafka connects with.

    Raises:
        OSError: a certificate or key isn't what it should be.
    """
    context = ssl.create_default_context(cafile=settings.ca_cert)
    if settings.client_cert and settings.client_key:
        context.load_cert_chain(
            settings.client_cert, settings.client_key, settings.client_key_password.get_secret_value()
        )
    return context
