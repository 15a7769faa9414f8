"""Bandwidth limits per service: what each cgroup may send and receive, and the engines that hold it to that."""
