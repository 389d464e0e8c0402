"""Producer of events: checks each event against its schema and publishes it to its topic."""

from pipeline.producer.producer import Producer

__all__ = ["Producer"]
