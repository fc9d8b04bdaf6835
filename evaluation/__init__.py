"""Replays of data sets through rankers: metrics, baselines, reports. Knows neither Kafka nor torch."""
