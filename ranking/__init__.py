"""Numbers only: vectors and counts to lists. Knows neither Kafka nor text."""
