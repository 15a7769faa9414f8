"""Road 1, second half: a Config becomes a Ruleset, a script, and the kernel's tables. Opens no packet."""
