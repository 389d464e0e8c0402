"""What a failure of Kafka means, by its code: worth another try, or for a person to look at.

A broker that refuses a login or a handshake looks like one that is away: a client tries again for ever, and its request
times out. So it is asked once more, by a client that lets us know why it can't connect.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import structlog
from confluent_kafka import KafkaError
from confluent_kafka.admin import AclOperation, AdminClient

from pipeline.config import KafkaSettings, env_name
from pipeline.errors import ChimeraError, HaltError, UnavailableError
from pipeline.kafka.client import client_config
from pipeline.kafka.oauth import Tokens
from pipeline.tls import client_context, handshake_error

_KNOCK_SECONDS = 10.0
_DOWN_SECONDS = 2.0  # for those that are all down to come back, or to be reached at another address
_POLL_SECONDS = 0.05
_WATCH_SECONDS = 2.0  # between two looks at whether connections fail
_log = structlog.get_logger("chimera.kafka")
# ruff: noqa: SLF001 (librdkafka's own error codes, which are below zero, are public under names with an underscore)
_FORBIDDEN = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    }
)
_SHUT_OUT = frozenset({KafkaError._AUTHENTICATION, KafkaError._SSL})
# Brokers that answer, but not now; any other refusal would be the same the next time.
_NOT_NOW = frozenset(
    {
        KafkaError.BROKER_NOT_AVAILABLE,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.KAFKA_STORAGE_ERROR,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NETWORK_EXCEPTION,
        KafkaError.NOT_CONTROLLER,
        KafkaError.NOT_COORDINATOR,
        KafkaError.NOT_ENOUGH_REPLICAS,
        KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.REPLICA_NOT_AVAILABLE,
        KafkaError.REQUEST_TIMED_OUT,
    }
)


def check_connection(settings: KafkaSettings) -> None:
    """Ask a broker for anything, to see whether it lets us in; a refusal is known at once.

    Raises:
        HaltError: it doesn't.
        UnavailableError: it doesn't answer, or the issuer of tokens doesn't.
    """
    if (reply := _knock(settings)) is not None:
        raise _no_answer(settings, reply)


async def watch_login(settings: KafkaSettings, failed: Callable[[], int], halt: Callable[[HaltError], None]) -> None:
    """Find out, for as long as a client runs, that brokers no longer let it in: aiokafka would try again for ever.

    Twice in a row, because a broker that is being started or stopped may hang up in the middle of a login.

    Args:
        settings: of the client.
        failed: how often it has failed to connect.
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
    """Why brokers don't let us in; None when they do, or don't answer."""
    try:
        check_connection(settings)
    except HaltError as error:
        return error
    except UnavailableError as error:
        _log.warning(str(error))
    return None


def explain_kafka(error: KafkaError, settings: KafkaSettings, what: str = "") -> ChimeraError:
    """Say which broker failed, how, and what to do about it.

    Args:
        error: as a client has it.
        settings: of the client.
        what: was asked for, a topic or a group.
    """
    if error.code() in _FORBIDDEN:
        return _forbidden(settings, what)
    if error.code() >= 0 and error.code() not in _NOT_NOW:
        return HaltError(f"{_where(settings)} refuses{what and f' {what}'}: {_described(error)}")
    reply = _knock(settings) if error.code() < 0 else None
    return _no_answer(settings, error if reply is None else reply)


def barred(error: KafkaError, settings: KafkaSettings, what: str) -> ChimeraError | None:
    """Why we aren't let in or may not do that, or that the issuer of tokens is away; None when it's something else."""
    if error.code() in _FORBIDDEN:
        return _forbidden(settings, what)
    if error.code() >= 0 or not (settings.tls or settings.sasl):
        return None
    reply = _knock(settings)
    return None if reply is None else _shut_out(settings, reply)


def expect(needed: AclOperation, granted: frozenset[AclOperation], settings: KafkaSettings, what: str) -> None:
    """See that an operation is among those that the broker grants on a topic or a group.

    Raises:
        HaltError: it isn't. A broker that doesn't tell, and grants nothing, will refuse when there is reason to.
    """
    if granted and needed not in granted:
        raise _forbidden(settings, f"{needed.name} on {what}")


def _forbidden(settings: KafkaSettings, what: str) -> HaltError:
    user = f"user {settings.user!r}" if settings.user else "this client"
    return HaltError(f"{_where(settings)} doesn't let {user} do that: {what}; docs/access.md has the ACLs it needs")


def _no_answer(settings: KafkaSettings, error: KafkaError) -> ChimeraError:
    return _shut_out(settings, error) or UnavailableError(f"{_where(settings)} is not available: {_described(error)}")


def _shut_out(settings: KafkaSettings, reply: KafkaError) -> ChimeraError | None:
    if reply.code() not in _SHUT_OUT:
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


def _knock(settings: KafkaSettings) -> KafkaError | None:
    """What keeps a new client from getting an answer; None when it gets one.

    A refusal is known at once. Anything else may be about one of several brokers, or of a name's addresses: another may
    answer yet.
    """
    errors: list[KafkaError] = []
    config: dict[str, Any] = {**client_config(settings), "error_cb": errors.append, "log_level": 0}
    client = AdminClient(config)
    answer = client.describe_cluster(request_timeout=_KNOCK_SECONDS)
    deadline = time.monotonic() + _KNOCK_SECONDS
    while not answer.done() and time.monotonic() < deadline:
        known = len(errors)
        client.poll(_POLL_SECONDS)
        for error in errors[known:]:
            if error.code() in _SHUT_OUT:
                return error
            if error.code() == KafkaError._ALL_BROKERS_DOWN:
                deadline = min(deadline, time.monotonic() + _DOWN_SECONDS)
    if answer.done() and answer.exception() is None:
        return None
    telling = (error for error in errors if error.code() != KafkaError._ALL_BROKERS_DOWN)
    return next(telling, KafkaError(KafkaError._TIMED_OUT))


def _tls_refusal(settings: KafkaSettings) -> str | None:
    """The reason of a handshake that fails, in one that says no more than that."""
    for server in settings.bootstrap_servers.split(","):
        host, _, port = server.rpartition(":")
        if error := handshake_error(client_context(settings), host.strip("[]"), int(port), _KNOCK_SECONDS):
            return str(error)
    return None


def _described(error: KafkaError) -> str:
    return f"{error.str().removesuffix(': ')} ({error.name()})"


def _where(settings: KafkaSettings) -> str:
    return f"Kafka at {settings.bootstrap_servers}"
