"""`python -m pipeline.cli`: the `chimera` command, run by this interpreter."""

from pipeline.cli import main

main()
