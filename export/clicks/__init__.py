"""The click model of the ranker: a log of requests in, a folder out that the ranker serves."""
