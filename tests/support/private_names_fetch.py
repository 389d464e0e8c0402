"""Names of aiokafka that pace its fetch requests; see `support.private_names`."""

from support.private_name import Name

_FETCHER = "aiokafka.consumer.fetcher"

FETCH_NAMES = [
    Name(
        "aiokafka:AIOKafkaConsumer()._fetch_max_wait_ms",
        "Faust has no setting for it",
        None,
        ("aiokafka:AIOKafkaConsumer.start", "fetch_max_wait_ms=self._fetch_max_wait_ms"),
    ),
    Name(
        "aiokafka:AIOKafkaConsumer()._fetch_min_bytes",
        "Faust has no setting for it",
        None,
        ("aiokafka:AIOKafkaConsumer.start", "fetch_min_bytes=self._fetch_min_bytes"),
    ),
    Name(
        f"{_FETCHER}:Fetcher()._fetch_min_bytes",
        "follows the flow of records",
        None,
        (
            f"{_FETCHER}:Fetcher._get_actions_per_node",
            "self._fetch_min_bytes,",
        ),
    ),
    Name(
        f"{_FETCHER}:Fetcher()._fetch_max_wait_ms",
        "follows the flow of records",
        None,
        (
            f"{_FETCHER}:Fetcher._get_actions_per_node",
            "self._fetch_max_wait_ms,",
        ),
    ),
]
