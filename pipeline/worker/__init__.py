"""The worker: its Faust app and process, the ingest of micro-batches, and its web pages."""
