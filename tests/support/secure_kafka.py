"""A broker that asks who one is and what one may do: SASL over TLS, TLS with client certificates, and ACLs."""

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

_ADMIN_SECONDS = 30
_OAUTH = "org.apache.kafka.common.security.oauthbearer"


class Grant(NamedTuple):
    """What somebody may do."""

    kind: ResourceType
    name: str
    operation: AclOperation
    pattern: ResourcePatternType = ResourcePatternType.LITERAL


class SecureBroker:
    """A broker with three doors: `sasl` and `mtls` for users, and one in plain text for the test, who may do all.

    Args:
        directory: configuration, data, logs and certificates.
        issuer: whose tokens are taken; its keys are at /jwks.
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
        doors = {"PLAINTEXT": plain, "SASL_SSL": sasl, "SSL": mtls}
        listeners = [f"{name}://{HOST}:{port}" for name, port in doors.items()]
        self.broker = KafkaBroker(
            directory / "kafka",
            port=plain,
            properties={
                "listeners": ",".join([*listeners, f"CONTROLLER://{HOST}:{controller}"]),
                "advertised.listeners": ",".join(listeners),
                "listener.security.protocol.map": "".join(f"{door}:{door}," for door in doors) + "CONTROLLER:PLAINTEXT",
                "inter.broker.listener.name": "PLAINTEXT",
                "controller.quorum.voters": f"1@{HOST}:{controller}",
                "ssl.keystore.type": "PEM",
                "ssl.keystore.location": str(store),
                "ssl.truststore.type": "PEM",
                "ssl.truststore.location": str(self.ca_cert),
                "listener.name.ssl.ssl.client.auth": "required",
                "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER",
                "listener.name.sasl_ssl.plain.sasl.jaas.config": (
                    'org.apache.kafka.common.security.plain.PlainLoginModule required user_plain="plain-secret";'
                ),
                "listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config": (
                    "org.apache.kafka.common.security.scram.ScramLoginModule required;"
                ),
                "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config": (
                    "org.apache.kafka.common.security.scram.ScramLoginModule required;"
                ),
                "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
                "super.users": "User:ANONYMOUS",
                "listener.name.sasl_ssl.oauthbearer.sasl.jaas.config": f"{_OAUTH}.OAuthBearerLoginModule required;",
                "listener.name.sasl_ssl.oauthbearer.sasl.server.callback.handler.class": (
                    f"{_OAUTH}.OAuthBearerValidatorCallbackHandler"
                ),
                "listener.name.sasl_ssl.oauthbearer.sasl.oauthbearer.jwks.endpoint.url": self._keys,
                "listener.name.sasl_ssl.oauthbearer.sasl.oauthbearer.expected.audience": "kafka",
            },
        )

    def _start(self) -> None:
        with pytest.MonkeyPatch.context() as patch:  # whose addresses the broker may ask is a property of its JVM
            patch.setenv("JAVA_TOOL_OPTIONS", f"-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls={self._keys}")
            self.broker.start()

    def bounce(self) -> None:
        """Stop it, and start it again: everybody has to log in anew."""
        self.broker.stop()
        self._start()

    def __enter__(self) -> Self:
        self._start()
        self._admin = AdminClient({"bootstrap.servers": self.broker.bootstrap_servers, "log_level": 0})
        return self

    def __exit__(self, *_: object) -> None:
        self.broker.stop()

    def add_user(self, name: str, password: str) -> None:
        """Known under both SCRAM mechanisms."""
        for mechanism in (ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512):
            login = UserScramCredentialUpsertion(name, ScramCredentialInfo(mechanism, 4096), password.encode())
            for done in self._admin.alter_user_scram_credentials([login]).values():
                done.result(_ADMIN_SECONDS)

    def allow(self, user: str, *grants: Grant) -> None:
        """Let a user do these."""
        self._each(self._admin.create_acls([AclBinding(*_rule(user, grant)) for grant in grants]))
        eventually(lambda: all(self._may(user, grant) for grant in grants), "the broker knows the ACLs")

    def forbid(self, user: str, *grants: Grant) -> None:
        """Take back what `allow` gave."""
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
    """As Kafka reads it: the key in PKCS #8."""
    key = load_pem_private_key(certificate.private_key_pem.bytes(), None)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return b"".join([pem, *(each.bytes() for each in certificate.cert_chain_pems)])
