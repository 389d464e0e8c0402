"""The worker: its Faust app, the ingest of a micro-batch, and its web pages."""
