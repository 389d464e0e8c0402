"""Two ClickHouse servers that are replicas of each other, and the ZooKeeper between them."""
