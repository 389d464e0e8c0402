"""Volumes of a storage policy: old days of a table move from the first one to `warm`, and then to `cold`."""

WARM = "warm"
COLD = "cold"
VOLUMES = (WARM, COLD)
"""Volumes that a policy must have besides its first one."""
