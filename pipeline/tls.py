"""TLS context of clients, and the reason why a handshake fails."""

import socket
import ssl
from pathlib import Path
from typing import Protocol

from pydantic import SecretStr


class Certificates(Protocol):
    """PEM files of a client: the certificate authority it trusts, its own certificate and its key."""

    @property
    def ca_cert(self) -> Path | None: ...  # noqa: D102 (a name of the settings, like the others below)
    @property
    def client_cert(self) -> Path | None: ...  # noqa: D102
    @property
    def client_key(self) -> Path | None: ...  # noqa: D102
    @property
    def client_key_password(self) -> SecretStr: ...  # noqa: D102


def client_context(files: Certificates) -> ssl.SSLContext:
    """Return a context that checks the server's certificate against `ca_cert`; without it, against the system's store.

    Raises:
        OSError: a file can't be read, or the key doesn't belong to the certificate.
    """
    context = ssl.create_default_context(cafile=files.ca_cert)
    if files.client_cert and files.client_key:
        context.load_cert_chain(files.client_cert, files.client_key, files.client_key_password.get_secret_value())
    return context


def handshake_error(context: ssl.SSLContext, host: str, port: int, seconds: float) -> ssl.SSLError | None:
    """Try one handshake; return its TLS error, or None if it succeeds or the server is unreachable.

    Args:
        context: configured as the driver's.
        host: name or address of the server; its certificate must have it if the context checks that.
        port: of the server.
        seconds: timeout for each answer.
    """
    try:
        with socket.create_connection((host, port), seconds) as plain:
            context.wrap_socket(plain, server_hostname=host).close()
    except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
        return None  # the server closed the connection during the handshake
    except ssl.SSLError as error:
        return error
    except OSError:
        return None
    return None


def system_authorities() -> str | None:
    """File or directory with the certificate authorities that the system trusts; None if there is neither.

    A library's own list has the public authorities alone, and lacks a company's.
    """
    paths = ssl.get_default_verify_paths()
    if paths.cafile:
        return paths.cafile
    return paths.capath if paths.capath and any(Path(paths.capath).iterdir()) else None


def certificate_error(error: BaseException | None) -> ssl.SSLCertVerificationError | None:
    """Return the refusal of a server's certificate that led to a failure, if one did."""
    while error is not None and not isinstance(error, ssl.SSLCertVerificationError):
        error = error.__cause__ or error.__context__
    return error
