"""`python -m pipeline.cli`: the `chimera` command of this very interpreter."""

from pipeline.cli import main

main()
