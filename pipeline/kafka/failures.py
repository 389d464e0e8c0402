"""Explain a failure of Kafka by its code: UnavailableError if another try may help, HaltError if a person has to act.

A client can't tell a refused login or handshake from an absent broker: it retries, and its request times out. A probe
tells them apart: a new client that reports why it can't connect.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import structlog
from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AclOperation, AdminClient

from pipeline.config import KafkaSettings, env_name
from pipeline.errors import ChimeraError, HaltError, UnavailableError
from pipeline.kafka.client import client_config
from pipeline.kafka.oauth import Tokens
from pipeline.tls import client_context, handshake_error

PROBE_SECONDS = 10.0
"""Longest wait of a probe for an answer."""
_DOWN_SECONDS = 2.0  # wait after all brokers are down: one may come back, or answer at another address
_POLL_SECONDS = 0.05
_SOME_TOPIC = "__consumer_offsets"  # it may be missing: the answer counts, not what it says
_WATCH_SECONDS = 2.0  # between two checks for failed connections
_log = structlog.get_logger("chimera.kafka")
# ruff: noqa: SLF001 (librdkafka's own error codes, all below zero, are public under names with an underscore)
_FORBIDDEN = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    }
)
_REFUSALS = frozenset({KafkaError._AUTHENTICATION, KafkaError._SSL})
NOT_NOW = frozenset(
    {
        KafkaError.BROKER_NOT_AVAILABLE,
        KafkaError.CONCURRENT_TRANSACTIONS,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.KAFKA_STORAGE_ERROR,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.LISTENER_NOT_FOUND,
        KafkaError.NETWORK_EXCEPTION,
        KafkaError.NOT_CONTROLLER,
        KafkaError.NOT_COORDINATOR,
        KafkaError.NOT_ENOUGH_REPLICAS,
        KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.OFFSET_NOT_AVAILABLE,
        KafkaError.PREFERRED_LEADER_NOT_AVAILABLE,
        KafkaError.REASSIGNMENT_IN_PROGRESS,
        KafkaError.REPLICA_NOT_AVAILABLE,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.STALE_BROKER_EPOCH,
        KafkaError.THROTTLING_QUOTA_EXCEEDED,
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError.UNSTABLE_OFFSET_COMMIT,
    }
)
"""Codes of temporary refusals; any other refusal would be the same the next time."""


NO_TOPIC = frozenset(
    {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION},
)
"""Codes of a missing topic or partition."""


def missing_topic(settings: KafkaSettings, topic: str) -> str:
    """Return the message for a missing topic; it says how to create one."""
    return f"{_where(settings)}: no topic {topic}; create it with `chimera topics apply`"


def check_connection(settings: KafkaSettings, probe_seconds: float = PROBE_SECONDS) -> None:
    """Check that a broker accepts a connection and its login; a refusal is reported at once.

    Raises:
        HaltError: the broker or the token issuer refuses us.
        UnavailableError: the broker or the token issuer doesn't answer.
    """
    if (reply := _probe(settings, probe_seconds)) is not None:
        raise _no_answer(settings, reply)


async def watch_login(settings: KafkaSettings, failed: Callable[[], int], halt: Callable[[HaltError], None]) -> None:
    """Halt a running client once brokers refuse its login; aiokafka would retry for ever.

    Two refusals in a row are needed, because a broker that starts or stops may hang up in the middle of a login.

    Args:
        settings: settings of the client.
        failed: returns the number of failed connections so far.
        halt: called with the refusal.
    """
    seen, before = 0, None
    while True:
        await asyncio.sleep(_WATCH_SECONDS)
        now = failed()
        refusal = await asyncio.to_thread(_refusal, settings) if now > seen else None
        if refusal and before:
            halt(refusal)
        seen, before = now, refusal


def _refusal(settings: KafkaSettings) -> HaltError | None:
    """Return the refusal of the brokers; None if they accept the login or don't answer."""
    try:
        check_connection(settings)
    except HaltError as error:
        return error
    except UnavailableError as error:
        _log.warning(str(error))
    return None


def explain_kafka(
    error: KafkaError, settings: KafkaSettings, what: str = "", *, probe_seconds: float = PROBE_SECONDS
) -> ChimeraError:
    """Make an error that says which broker failed, how, and what to do about it.

    Args:
        error: error of a client.
        settings: settings of that client.
        what: the topic, group or operation that was asked for.
        probe_seconds: longest wait for the reason of a failed connection.
    """
    if error.code() in _FORBIDDEN:
        return _forbidden(settings, what)
    if error.code() >= 0 and error.code() not in NOT_NOW:
        return HaltError(f"{_where(settings)} refuses{what and f' {what}'}: {_described(error)}")
    reply = _probe(settings, probe_seconds) if error.code() < 0 else None
    return _no_answer(settings, error if reply is None else reply)


def explain_refusal(error: KafkaError, settings: KafkaSettings, what: str) -> ChimeraError | None:
    """Make an error for a refused login, a missing ACL or an absent token issuer; None for any other failure."""
    if error.code() in _FORBIDDEN:
        return _forbidden(settings, what)
    if error.code() >= 0 or not (settings.tls or settings.sasl):
        return None
    reply = _probe(settings, PROBE_SECONDS)
    return None if reply is None else _login_refusal(settings, reply)


def check_granted(needed: AclOperation, granted: frozenset[AclOperation], settings: KafkaSettings, what: str) -> None:
    """Check that the broker grants an operation on a topic or a group.

    A broker without an authorizer reports no operations at all; that passes.

    Raises:
        HaltError: the operation isn't granted.
    """
    if granted and needed not in granted:
        raise _forbidden(settings, f"{needed.name} on {what}")


def _forbidden(settings: KafkaSettings, what: str) -> HaltError:
    user = f"user {settings.user!r}" if settings.user else "this client"
    return HaltError(f"{_where(settings)} doesn't let {user} do that: {what}; docs/access.md lists the ACLs it needs")


def _no_answer(settings: KafkaSettings, error: KafkaError) -> ChimeraError:
    return _login_refusal(settings, error) or UnavailableError(
        f"{_where(settings)} is not available: {_described(error)}"
    )


def _login_refusal(settings: KafkaSettings, reply: KafkaError) -> ChimeraError | None:
    if reply.code() not in _REFUSALS:
        return None
    if reply.code() == KafkaError._SSL:
        reason = _tls_refusal(settings) or reply.str()
        names = ", ".join(env_name("kafka", key) for key in ("security_protocol", "ca_cert", "client_cert"))
        return HaltError(f"{_where(settings)}: no TLS connection: {reason}; check {names}")
    if settings.oauth_token_url:
        try:
            Tokens(settings).token()
        except ChimeraError as error:
            return error
    names = ", ".join(env_name("kafka", key) for key in ("user", "password", "sasl_mechanism"))
    return HaltError(f"{_where(settings)} refuses user {settings.user!r} or the password; check {names}")


def _probe(settings: KafkaSettings, seconds: float) -> KafkaError | None:
    """Return the error of a new client that gets no answer; None if it gets one.

    A refusal is reported at once. Any other error may concern one of several brokers, or one address of a name, so the
    probe keeps waiting for another one.
    """
    errors: list[KafkaError] = []
    config: dict[str, Any] = {**client_config(settings), "error_cb": errors.append, "log_level": 0}
    client = AdminClient(config)
    # Not describe_cluster: librdkafka ends the process if the answer has neither a broker nor a topic, as that of a
    # broker that was silent for a while, until the controller takes it for alive again.
    answer = client.describe_topics(TopicCollection([_SOME_TOPIC]), request_timeout=seconds)[_SOME_TOPIC]
    deadline = time.monotonic() + seconds
    while not answer.done() and time.monotonic() < deadline:
        known = len(errors)
        client.poll(_POLL_SECONDS)
        for error in errors[known:]:
            if error.code() in _REFUSALS:
                return error
            if error.code() == KafkaError._ALL_BROKERS_DOWN:
                deadline = min(deadline, time.monotonic() + _DOWN_SECONDS)
    if answer.done() and _is_of_broker(answer.exception()):
        return None
    telling = (error for error in errors if error.code() != KafkaError._ALL_BROKERS_DOWN)
    return next(telling, KafkaError(KafkaError._TIMED_OUT))


def _is_of_broker(error: BaseException | None) -> bool:
    """Tell whether a broker has answered, be it that there is no such topic, or that we may not see it."""
    return error is None or (isinstance(error, KafkaException) and error.args[0].code() >= 0)


def _tls_refusal(settings: KafkaSettings) -> str | None:
    """Return the reason of a failed handshake. Python makes the handshake again, because librdkafka gives no reason."""
    for server in settings.bootstrap_servers.split(","):
        host, _, port = server.rpartition(":")
        if error := handshake_error(client_context(settings), host.strip("[]"), int(port), PROBE_SECONDS):
            return str(error)
    return None


def _described(error: KafkaError) -> str:
    return f"{error.str().removesuffix(': ')} ({error.name()})"


def _where(settings: KafkaSettings) -> str:
    return f"Kafka at {settings.bootstrap_servers}"
