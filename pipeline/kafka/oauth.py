"""OAuth tokens by the client-credentials grant: fetched in bounded time, renewed before they expire."""

import base64
import ssl
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import orjson

from pipeline.config import KafkaSettings
from pipeline.errors import HaltError, UnavailableError

_ANSWER_SECONDS = 10.0
_MOST_BYTES = 1024 * 1024
_USED_UP = 0.8  # of a token's life; the rest bridges a short absence of the issuer
_LIFE_SECONDS = 300.0  # of a token whose issuer states no lifetime
_NOT_NOW = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS}


@dataclass(frozen=True, slots=True)
class _Token:
    text: str
    renew_at: float  # by the clock

    def __repr__(self) -> str:
        return "<token>"


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Treats a redirect as a refusal: following it would send our secret elsewhere."""

    def redirect_request(self, *_: Any) -> None:
        """Don't follow the redirect."""


class Tokens:
    """Tokens of one client. Use it from any number of threads.

    Args:
        settings: issuer, client id and secret.
        clock: seconds, monotonic.
    """

    def __init__(self, settings: KafkaSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._token: _Token | None = None
        self._fetching = threading.Lock()

    def token(self) -> str:
        """Return a valid token. It is fetched once and renewed when 80 % of its lifetime have passed.

        Raises:
            UnavailableError: the issuer doesn't answer.
            HaltError: the issuer refuses us, or its answer holds no token.
        """
        with self._fetching:
            if self._token is None or self._clock() >= self._token.renew_at:
                self._token = self._fetch()
            return self._token.text

    def _fetch(self) -> _Token:
        asked_at, where = self._clock(), f"OAuth issuer at {self._settings.oauth_token_url}"
        try:
            answer = orjson.loads(self._post())
            life = float(answer.get("expires_in", _LIFE_SECONDS))
            return _Token(str(answer["access_token"]), asked_at + _USED_UP * life)
        except urllib.error.HTTPError as error:
            if error.code in _NOT_NOW or error.code >= HTTPStatus.INTERNAL_SERVER_ERROR:
                raise UnavailableError(f"{where} is not available: HTTP {error.code}") from None
            names = "CHIMERA_KAFKA__USER, CHIMERA_KAFKA__PASSWORD and CHIMERA_KAFKA__OAUTH_SCOPE"
            raise HaltError(
                f"{where} refuses client {self._settings.user!r}: HTTP {error.code}; check {names}"
            ) from None
        except urllib.error.URLError as error:
            if isinstance(error.reason, ssl.SSLCertVerificationError):
                reason = error.reason.verify_message
                raise HaltError(f"{where}: no TLS connection: {reason}; check CHIMERA_KAFKA__CA_CERT") from None
            raise UnavailableError(f"{where} is not available: {error.reason}") from None
        except OSError as error:
            raise UnavailableError(f"{where} is not available: {error or type(error).__name__}") from None
        except (ValueError, KeyError, TypeError, AttributeError):
            raise HaltError(f"{where}: expected JSON with access_token and expires_in in seconds") from None

    def _post(self) -> bytes:
        settings = self._settings
        form = {"grant_type": "client_credentials", **({"scope": settings.oauth_scope} if settings.oauth_scope else {})}
        login = ":".join(
            urllib.parse.quote(part) for part in (str(settings.user), settings.password.get_secret_value())
        )
        request = urllib.request.Request(  # noqa: S310 (the setting allows http and https only)
            str(settings.oauth_token_url),
            urllib.parse.urlencode(form).encode(),
            {"Authorization": f"Basic {base64.b64encode(login.encode()).decode()}", "Accept": "application/json"},
        )
        https = urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=settings.ca_cert))
        with urllib.request.build_opener(https, _NoRedirect).open(request, timeout=_ANSWER_SECONDS) as answer:
            body: bytes = answer.read(_MOST_BYTES)
            return body
