# Sources by address in one zone and by MAC in another; destinations as part of the flow; learning from outside, on request.

rule_learning {
  enabled     = true
  inline_mode = true
  fail_mode   = "closed"
  log_group   = 5
}

zone "lan" {
  interface = "lan0"
}

zone "vpn" {
  interface = "wg0"
  identity  = "ip"
}

zone "wan" {
  interface = "wan0"
  external  = true
  identity  = "ip"
}

policy "wan" "lan" {
  learn       = true
  granularity = "destination"
}

policy "lan" "wan" {
  granularity = "destination"
}
