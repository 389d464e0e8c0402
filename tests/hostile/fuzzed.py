"""The process that is fuzzed: `python -m hostile.fuzzed TARGET`, and what libFuzzer takes; never returns."""

import sys

import atheris

with atheris.instrument_imports(include=["pipeline"]):  # before anything else imports it
    from hostile.targets import TARGETS

atheris.Setup([sys.argv[0], *sys.argv[2:]], TARGETS[sys.argv[1]])
atheris.Fuzz()
