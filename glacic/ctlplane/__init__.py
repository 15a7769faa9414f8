"""The outside world: sockets, signals, processes and people."""
