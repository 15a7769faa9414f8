"""Road 1, first half: a file in HCL becomes a Config. Knows HCL, knows nothing of nftables."""
