"""The words that every room shares: messages, records, topics, settings, errors."""
