"""The worker against its peers: the same topic into the same table, each contender in a process of its own."""
