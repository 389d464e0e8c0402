"""Kafka through confluent-kafka: clients, logins, failures, topics, offset ranges, producing, the schema registry."""
