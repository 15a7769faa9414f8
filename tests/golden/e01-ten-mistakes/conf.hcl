# Ten mistakes of ten kinds, told in one pass.

rule_learning {
  enabled   = true
  log_group = 70000
  learn_for = 24h
  log_group = 100
}

zone "lan" {
  interface = "lan0"
  idenity   = "mac"
}

zone "wan" {
  interface = "wan0"
  external  = true
}

zone "guests" {
  interfaces = ["guest0", "lan0"]
}

policy "lan" "wann" {
  action = "drop"

  rule "ping" {
    proto     = "icmp"
    dest_port = 80
    action    = "accept"
  }

  rule "office" {
    src_ip = "10.1.0.1/24"
    action = "acept"
  }
}

policy "wan" "lan" {
  learn = true
}
