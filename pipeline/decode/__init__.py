"""Decoding and validation of micro-batches, by column."""
