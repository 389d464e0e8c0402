"""A name of a library that no documentation promises, and that the pipeline uses."""

from typing import NamedTuple


class Name(NamedTuple):
    """A name that we use, and how the library uses it."""

    where: str
    """Module and qualified name; with `()` after a class, an attribute that its constructor sets."""
    why: str
    """Reason why the pipeline uses it."""
    parameters: str | None = None
    """Names of the parameters, for a function that we call or override."""
    used_in: tuple[str, str] | None = None
    """Function of the library, and the part of its source that uses the name as we count on."""
