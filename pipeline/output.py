"""Standard output of the worker and the commands."""

import io
import sys


def accept_any_text() -> None:
    """Let standard output escape characters that its encoding lacks; Python's own way is to raise UnicodeEncodeError.

    The environment chooses the encoding: PYTHONIOENCODING, LC_ALL. A file name may have bytes that even UTF-8 lacks.
    Standard error escapes such characters already.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # else a caller has replaced or closed it
        sys.stdout.reconfigure(errors="backslashreplace")
