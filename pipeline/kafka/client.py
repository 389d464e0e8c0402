"""Configuration of confluent-kafka's clients.

Every client checks the broker's certificate and name against the configured authority, or the system's authorities.
"""

from pipeline.config import KafkaSettings


def client_config(settings: KafkaSettings) -> dict[str, str | int]:
    """Return the properties that all clients share. They hold the secrets in plain text."""
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


def _login(settings: KafkaSettings) -> dict[str, str | int]:
    return {"sasl.username": str(settings.user), "sasl.password": settings.password.get_secret_value()}


def _oauth(settings: KafkaSettings) -> dict[str, str | int]:
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
