"""Interest models: reading sequences in, a folder out that the users worker serves. Only what trains knows torch."""
