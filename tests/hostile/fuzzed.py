"""The process under test: `python -m hostile.fuzzed TARGET`, with libFuzzer's options; it never returns."""

import sys

import atheris

with atheris.instrument_imports(include=["pipeline"]):  # before any other import of pipeline
    from hostile.targets import TARGETS

atheris.Setup([sys.argv[0], *sys.argv[2:]], TARGETS[sys.argv[1]])
atheris.Fuzz()
