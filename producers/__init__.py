"""What comes in: a simulated newsroom and its users, replayed data sets."""
