"""The workers and the feed: where numbers meet Kafka."""
