"""Why a TLS handshake fails that the network lets through: what drivers raise doesn't tell one from the other."""

import socket
import ssl


def refusal(context: ssl.SSLContext, host: str, port: int, seconds: float) -> ssl.SSLError | None:
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
