"""Everything on one machine: broker, workers, a simulated newsroom, the page, and an independent account of it all."""
