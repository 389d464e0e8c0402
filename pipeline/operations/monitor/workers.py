"""Answers of the workers at their `/ready`: whether records flow through each, and why one has halted.

The group tells from which address a worker has come and on which port it listens. A worker that halts leaves the group
first, and then says why for some seconds; so workers that have left are asked for some time longer.
"""

import http.client
import socket
import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http import HTTPStatus
from typing import NamedTuple

from pipeline.kafka.standing import Member

HALT_SECONDS = 3600.0
"""Time for which a halt is shown, if no worker is ready at its address before."""
_GONE_SECONDS = 900.0  # for which a worker that has left the group is asked; one that is started again may halt again
_UNREACHABLE_SECONDS = 60.0  # between two attempts at an address that has never answered and doesn't even refuse
_AT_ONCE = 16
_LOOPBACK = "127.0.0.1"
_MOST_BYTES = 2000


class Address(NamedTuple):
    """Address of a worker's web server."""

    host: str
    port: int

    def __str__(self) -> str:
        """Return host:port, as in a URL."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Words:
    """Answer of a worker at its `/ready`."""

    status: HTTPStatus
    text: str
    """Lines of the answer, without what all of them begin with."""

    @property
    def ready(self) -> bool:
        """True if records flow."""
        return self.status is HTTPStatus.OK


@dataclass(slots=True)
class _Heard:
    seen_at: float
    """Time at which it was in the group, or answered."""
    words: Words | None = None
    halting: bool = False
    """True from the answer that it halts to its next answer, also while it restarts or is gone."""
    halt: str | None = None
    halted_at: float = 0.0
    answered: bool = False
    ask_at: float = 0.0


class WorkerWatch:
    """Last answers of all workers; safe to use from several threads.

    Args:
        named: host:port of workers, comma-separated, besides those of the group; a name may stand for several.
        answer_seconds: longest wait for an answer.
    """

    def __init__(self, named: str | None, *, answer_seconds: float) -> None:
        self._named = [each.strip() for each in (named or "").split(",") if each.strip()]
        self._answer_seconds = answer_seconds
        self._courses: dict[Address, _Heard] = {}
        self._lock = threading.Lock()

    def look(self, now: float, members: Iterable[Member]) -> list[str]:
        """Ask all workers that are known, several at once; return the halts that are new, in words."""
        there = {address for member in members if (address := address_of(member))}
        there.update(address for name in self._named for address in _resolved(name))
        with self._lock:
            for address in there:
                self._courses.setdefault(address, _Heard(now)).seen_at = now
            self._forget(now)
            asked = [address for address, course in self._courses.items() if course.ask_at <= now]
        if not asked:
            return []
        with ThreadPoolExecutor(min(_AT_ONCE, len(asked)), thread_name_prefix="workers") as pool:
            answers = dict(zip(asked, pool.map(self._ask, asked), strict=True))
        with self._lock:
            return [halt for address, answer in answers.items() if (halt := self._learn(address, answer, now))]

    def words(self, member: Member) -> Words | None:
        """Return the last answer of a member; None if it can't be asked, or doesn't answer."""
        with self._lock:
            address = address_of(member)
            course = self._courses.get(address) if address else None
            return course.words if course else None

    def halts(self) -> Mapping[str, str]:
        """Return why workers have halted, by address."""
        with self._lock:
            return {str(address): course.halt for address, course in self._courses.items() if course.halt is not None}

    def _learn(self, address: Address, answer: Words | OSError, now: float) -> str | None:
        course = self._courses[address]
        course.words = answer if isinstance(answer, Words) else None
        if course.words is None:
            # One that has answered is only slow, and its next word may be the last one.
            unreachable = isinstance(answer, TimeoutError) and not course.answered
            course.ask_at = now + _UNREACHABLE_SECONDS if unreachable else 0.0
            return None
        course.seen_at, course.answered = now, True
        before, course.halting = course.halting, course.words.status is HTTPStatus.GONE
        if course.words.ready:
            course.halt = None
        if course.halting:
            course.halt, course.halted_at = course.words.text, now
        return f"the worker at {address} has halted: {course.halt}" if course.halting and not before else None

    def _forget(self, now: float) -> None:
        for address, course in list(self._courses.items()):
            if course.halt is not None and now - course.halted_at > HALT_SECONDS:
                course.halt = None
            if course.halt is None and now - course.seen_at > _GONE_SECONDS:
                del self._courses[address]

    def _ask(self, address: Address) -> Words | OSError:
        answer = self._ask_at(address.host, address.port)
        if isinstance(answer, ConnectionRefusedError) and _is_own(address.host):
            answer = self._ask_at(_LOOPBACK, address.port)  # it listens there, as it does by default
        return answer

    def _ask_at(self, host: str, port: int) -> Words | OSError:
        connection = http.client.HTTPConnection(host, port, timeout=self._answer_seconds)
        try:
            connection.request("GET", "/ready", headers={"Connection": "close"})
            answer = connection.getresponse()
            status, text = HTTPStatus(answer.status), answer.read(_MOST_BYTES).decode(errors="replace")
        except OSError as error:
            return error
        except (http.client.HTTPException, ValueError) as error:  # no worker listens there
            return OSError(str(error))
        finally:
            connection.close()
        if status not in {HTTPStatus.OK, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GONE}:
            return OSError(f"status {status}")
        return Words(status, "; ".join(line.partition(": ")[2] or line for line in text.splitlines()))


def address_of(member: Member) -> Address | None:
    """Return the address of a member's web server; None if it isn't known."""
    return Address(member.host, member.web_port) if member.web_port else None


def _is_own(host: str) -> bool:
    """True for an address of this machine, other than the usual one: only there, a socket can be bound to it."""
    try:
        with socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
            return host != _LOOPBACK
    except OSError:
        return False


def _resolved(name: str) -> set[Address]:
    """Return all addresses of host:port; none while the name isn't known."""
    host, _, port = name.rpartition(":")
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    except OSError:
        return set()
    return {Address(str(address[0]), int(address[1])) for *_, address in found}
