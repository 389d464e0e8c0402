"""Benchmark of session_stats: correctness of its rows, its cost for the worker, and the size of its state."""
