"""Numbers only: text to vectors, events to user state. Knows neither Kafka nor torch."""
