# Both ends of input and forward come twice: the mark tells the log reader which.

rule_learning {
  enabled = true
}

zone "lan" {
  interface = "lan0"
}

zone "vpn" {
  interface = "wg0"
  identity  = "ip"
}
