"""All requests to Kafka's brokers: each reach into aiokafka, and into the thread that Faust runs it in."""
