# What a rule does besides matching: where it can have no effect.

rule_learning {
  log_group = 7
}

zone "lan" {
  interface = "lan0"
}

zone "wan" {
  interface = "wan0"
  external  = true
}

policy "lan" "wan" {
  rule "refuses" {
    limit_per_source       = "10/minute"
    connections_per_source = 70000
    action                 = "drop"
  }

  rule "silent" {
    log_group   = 7
    reject_with = "port-unreachable"
    action      = "accept"
  }

  rule "loud" {
    log         = "loud: "
    log_group   = 9
    log_level   = "warm"
    proto       = ["tcp", "udp"]
    reject_with = "tcp-reset"
    action      = "reject"
  }
}

policy "firewall" "wan" {
  rule "one source" {
    limit_per_source = "5/sec"
    action           = "accept"
  }
}
