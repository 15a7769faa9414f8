# Accepted connections go past the chains; those in their packet window, and those of a fail mode, do not.

flowtable = true

rule_learning {
  inline_mode   = true
  log_group     = 100
  packet_window = 5
}

zone "lan" {
  interfaces = ["lan0", "wl*"]
}

zone "wan" {
  interface = "wan0"
  external  = true
}

policy "lan" "wan" {
  action = "accept"
}
