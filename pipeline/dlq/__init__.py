"""Dead letters: the worker writes them; `chimera dlq` counts, shows, requeues and drops them.

`writer` writes dead letters, with the header names of `headers`. `reading` reads a dead-letter topic into an `index`,
which knows each of the `letters` once and its state by the `receipts` in the same topic. `settle` requeues or drops
records; `content` reads the readable part of a value; `show` describes a dead letter, masked.
"""
