"""What session_stats amounts to: whether its rows are right, what it costs the worker, how large its state is."""
