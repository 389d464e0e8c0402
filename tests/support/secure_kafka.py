"""A broker with logins and ACLs: SASL over TLS, and TLS with client certificates."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

import pytest
import trustme
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from pipeline.devstack import KafkaBroker
from pipeline.devstack.ports import HOST, free_port
from support.processes import eventually

_ADMIN_SECONDS = 120.0
_SECURITY = "org.apache.kafka.common.security"
_SASL = "listener.name.sasl_ssl"
_LOGINS = {
    "ssl.keystore.type": "PEM",
    "ssl.truststore.type": "PEM",
    "listener.name.ssl.ssl.client.auth": "required",
    "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER",
    f"{_SASL}.plain.sasl.jaas.config": f'{_SECURITY}.plain.PlainLoginModule required user_plain="plain-secret";',
    f"{_SASL}.scram-sha-256.sasl.jaas.config": f"{_SECURITY}.scram.ScramLoginModule required;",
    f"{_SASL}.scram-sha-512.sasl.jaas.config": f"{_SECURITY}.scram.ScramLoginModule required;",
    f"{_SASL}.oauthbearer.sasl.jaas.config": f"{_SECURITY}.oauthbearer.OAuthBearerLoginModule required;",
    f"{_SASL}.oauthbearer.sasl.server.callback.handler.class": (
        f"{_SECURITY}.oauthbearer.OAuthBearerValidatorCallbackHandler"
    ),
    f"{_SASL}.oauthbearer.sasl.oauthbearer.expected.audience": "kafka",
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "super.users": "User:ANONYMOUS",
}


class Grant(NamedTuple):
    """One operation on one resource that a user may do."""

    kind: ResourceType
    name: str
    operation: AclOperation
    pattern: ResourcePatternType = ResourcePatternType.LITERAL


class SecureBroker:
    """A broker with three listeners: `sasl` and `mtls` for users, and plain text for the test, without limits.

    Args:
        directory: for configuration, data, logs and certificates.
        issuer: URL of the token issuer; its keys are at /jwks.
    """

    def __init__(self, directory: Path, issuer: str) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        plain, sasl, mtls, controller = (free_port() for _ in range(4))
        self.sasl, self.mtls = f"{HOST}:{sasl}", f"{HOST}:{mtls}"
        self._keys = f"{issuer}/jwks"
        self.authority = trustme.CA()
        self.ca_cert = directory / "ca.pem"
        self.authority.cert_pem.write_to_path(self.ca_cert)
        store = directory / "broker.pem"
        store.write_bytes(_key_and_chain(self.authority.issue_cert(HOST)))
        ports = {"PLAINTEXT": plain, "SASL_SSL": sasl, "SSL": mtls}
        listeners = [f"{name}://{HOST}:{port}" for name, port in ports.items()]
        self.broker = KafkaBroker(
            directory / "kafka",
            port=plain,
            properties={
                "listeners": ",".join([*listeners, f"CONTROLLER://{HOST}:{controller}"]),
                "advertised.listeners": ",".join(listeners),
                "listener.security.protocol.map": "".join(f"{name}:{name}," for name in ports) + "CONTROLLER:PLAINTEXT",
                "inter.broker.listener.name": "PLAINTEXT",
                "controller.quorum.voters": f"1@{HOST}:{controller}",
                "ssl.keystore.location": str(store),
                "ssl.truststore.location": str(self.ca_cert),
                "listener.name.sasl_ssl.oauthbearer.sasl.oauthbearer.jwks.endpoint.url": self._keys,
                **_LOGINS,
            },
        )

    def _start(self) -> None:
        with pytest.MonkeyPatch.context() as patch:  # a property of the broker's JVM lists the URLs that it may call
            patch.setenv("JAVA_TOOL_OPTIONS", f"-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls={self._keys}")
            self.broker.start()

    def bounce(self) -> None:
        """Restart the broker, so that every client has to log in again."""
        self.broker.stop()
        self._start()

    def __enter__(self) -> Self:
        self._start()
        self._admin = AdminClient({"bootstrap.servers": self.broker.bootstrap_servers, "log_level": 0})
        return self

    def __exit__(self, *_: object) -> None:
        self.broker.stop()

    def add_user(self, name: str, password: str) -> None:
        """Add a user, or change its password, for both SCRAM mechanisms."""
        for mechanism in (ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512):
            login = UserScramCredentialUpsertion(name, ScramCredentialInfo(mechanism, 4096), password.encode())
            for done in self._admin.alter_user_scram_credentials([login]).values():
                done.result(_ADMIN_SECONDS)

    def allow(self, user: str, *grants: Grant) -> None:
        """Grant operations to a user."""
        self._each(self._admin.create_acls([AclBinding(*_rule(user, grant)) for grant in grants]))
        eventually(lambda: all(self._may(user, grant) for grant in grants), "the broker knows the ACLs")

    def forbid(self, user: str, *grants: Grant) -> None:
        """Revoke operations that `allow` granted."""
        self._each(self._admin.delete_acls([AclBindingFilter(*_rule(user, grant)) for grant in grants]))
        eventually(lambda: not any(self._may(user, grant) for grant in grants), "the broker has forgotten the ACLs")

    def _may(self, user: str, grant: Grant) -> bool:
        return bool(self._admin.describe_acls(AclBindingFilter(*_rule(user, grant))).result(_ADMIN_SECONDS))

    @staticmethod
    def _each(futures: Mapping[Any, Any]) -> None:
        for future in futures.values():
            future.result(_ADMIN_SECONDS)


def _rule(user: str, grant: Grant) -> tuple[Any, ...]:
    return grant.kind, grant.name, grant.pattern, f"User:{user}", "*", grant.operation, AclPermissionType.ALLOW


def _key_and_chain(certificate: trustme.LeafCert) -> bytes:
    """Return key and certificates as Kafka reads them: the key in PKCS #8."""
    key = load_pem_private_key(certificate.private_key_pem.bytes(), None)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return b"".join([pem, *(each.bytes() for each in certificate.cert_chain_pems)])
