"""TLS: the context that clients connect with, and the reason why a handshake fails."""

import socket
import ssl
from pathlib import Path
from typing import Protocol

from pydantic import SecretStr


class Certificates(Protocol):
    """PEM files of a client: the authority it trusts, its own certificate and key."""

    @property
    def ca_cert(self) -> Path | None: ...  # noqa: D102 (the settings' names, as all below)
    @property
    def client_cert(self) -> Path | None: ...  # noqa: D102
    @property
    def client_key(self) -> Path | None: ...  # noqa: D102
    @property
    def client_key_password(self) -> SecretStr: ...  # noqa: D102


def client_context(files: Certificates) -> ssl.SSLContext:
    """Context that checks the server against the given authority, or against those the system trusts.

    Raises:
        OSError: a certificate or a key cannot be read or does not fit.
    """
    context = ssl.create_default_context(cafile=files.ca_cert)
    if files.client_cert and files.client_key:
        context.load_cert_chain(files.client_cert, files.client_key, files.client_key_password.get_secret_value())
    return context


def handshake_error(context: ssl.SSLContext, host: str, port: int, seconds: float) -> ssl.SSLError | None:
    """Shake hands once; the reason when that fails for certificates or protocols, None when it doesn't.

    Args:
        context: as the driver has it.
        host: whose name or address the certificate must have, when the context checks it.
        port: where it listens.
        seconds: how long an answer is waited for.
    """
    try:
        with socket.create_connection((host, port), seconds) as plain:
            context.wrap_socket(plain, server_hostname=host).close()
    except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
        return None  # cut off in the middle
    except ssl.SSLError as error:
        return error
    except OSError:
        return None
    return None
