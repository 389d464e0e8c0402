"""The name of a partition, for packages that import neither Faust nor aiokafka."""

import faust.types

TopicPartition = faust.types.TP
