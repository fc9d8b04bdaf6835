"""What can be started, a file for each group of commands: options in, rooms wired together, no logic."""
