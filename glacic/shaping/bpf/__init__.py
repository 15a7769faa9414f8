"""Limits by eBPF programs on cgroups: made here instruction by instruction and loaded by bpf(2), without a compiler."""
