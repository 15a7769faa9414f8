# The firewall's own packets, where a policy speaks of them. What no policy claims may go.

rule_learning {
  enabled     = true
  inline_mode = true
  log_group   = 100
}

zone "lan" {
  interface = "lan0"
}

zone "wan" {
  interface = "wan0"
  external  = true
}

policy "firewall" "wan" {
  granularity = "destination"

  rule "dns" {
    proto     = "udp"
    dest_port = 53
    action    = "accept"
  }
}
