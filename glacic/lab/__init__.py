"""A small network in network namespaces of its own, to watch the service at work and to test it."""
