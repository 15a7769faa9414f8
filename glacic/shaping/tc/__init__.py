"""Limits held by traffic control: shaping per cgroup, and the interface-wide fallback."""
