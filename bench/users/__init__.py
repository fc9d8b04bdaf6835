"""``make bench-users``: the same fold by Kafka Streams, stoppress, and other stream processors in Python."""
