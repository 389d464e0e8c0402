"""Producer of events: checks each event against its schema and sends it to its topic."""

from pipeline.producer.producer import Producer

__all__ = ["Producer"]
