"""What `chimera dlq` does with the dead letters of a family: count, show, requeue, drop.

A dead-letter topic is read through `log` into an `index`, which knows each of the `letters` once and, by `receipts` in
the same topic, what has become of it. `settle` sends records back to their source topic, or drops them; `content` reads
as much of one as can be read, `show` puts it into words, masked.
"""
