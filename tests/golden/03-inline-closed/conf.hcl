# Four queues, closed where nobody listens, a rate limit with its sink, and a packet window.

rule_learning {
  enabled       = true
  inline_mode   = true
  log_group     = 100
  queues        = 4
  fail_mode     = "closed"
  rate_limit    = "20/second"
  packet_window = 5
  offload_mark  = "0x01000000"
}

zone "lan" {
  interface = "lan0"
}
