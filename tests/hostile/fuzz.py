"""`python -m hostile.fuzz`: search for bytes that break the decoder, with a fuzzer that measures code coverage."""

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from hostile.seeds import load, make, store
from hostile.targets import TARGETS

# libFuzzer and its coverage data take memory too, a few KB for each input.
_OPTIONS = ("-timeout=5", "-malloc_limit_mb=256", "-rss_limit_mb=4096", "-max_len=4096", "-print_final_stats=1")
_KEYS = ("type", "name", "fields", "items", "values", "symbols", "size", "namespace", "logicalType", "extra", "UiEvent")
_KINDS = (
    "record",
    "enum",
    "fixed",
    "array",
    "map",
    "null",
    "boolean",
    "int",
    "long",
    "float",
    "double",
    "string",
    "bytes",
)
_WORDS = (*(f'\\"{word}\\"' for word in (*_KEYS, *_KINDS)), "{", "}", "[", "]", "\\x0a\\x0a")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("target", type=click.Choice(list(TARGETS)))
@click.option("--seconds", default=300, show_default=True, type=click.IntRange(min=1), help="Duration of the search.")
@click.option("--keep", is_flag=True, help="Keep inputs that reach new code as seeds.")
def main(target: str, seconds: int, keep: bool) -> None:
    """Fuzz the decoding of records, the checks of writer schemas, the sanitising of texts, or the filter of metadata.

    A crash, five seconds for one input, or an allocation of 256 MB is a failure. The last lines of output and a file in
    the working directory have the input. Needs requirements/fuzz.txt, which `make fuzz` installs.

    \b
    Examples:
      PYTHONPATH=tests python -m hostile.fuzz records
      PYTHONPATH=tests python -m hostile.fuzz schemas --seconds 600 --keep

    \b
    Exit codes:
      0   no failure was found in that time
      70  an input took too long
      71  an input took too much memory
      77  an input failed
    """
    with TemporaryDirectory() as directory:
        corpus, words = (Path(directory) / name for name in ("corpus", "words"))
        words.write_text("".join(f'"{word}"\n' for word in _WORDS), encoding="ascii")
        corpus.mkdir()
        for number, seed in enumerate([*load(target), *make(target)]):
            (corpus / str(number)).write_bytes(seed)
        ended = _fuzz(target, f"-max_total_time={seconds}", f"-dict={words}", str(corpus))
        if keep and ended == 0:  # files that the fuzzer added have other names
            found = [file.read_bytes() for file in corpus.iterdir() if not file.name.isdigit()]
            store(target, [*load(target), *found])
    sys.exit(ended)


def _fuzz(target: str, *options: str) -> int:
    command = [sys.executable, "-m", "hostile.fuzzed", target, *_OPTIONS, *options]
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    main()
