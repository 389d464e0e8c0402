"""Decodes and validates micro-batches by column: record values become valid rows and rejections."""
