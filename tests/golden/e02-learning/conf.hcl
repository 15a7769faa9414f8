# rule_learning: bounds, types, words, and what has no effect in this mode.

rule_learning {
  enabled         = "true"
  inline_mode     = false
  queues          = 4
  fail_mode       = "opne"
  queue_full      = "open"
  learn_max       = 0
  rate_limit      = "10/fortnight"
  ignore_networks = ["224.0.0.0/4", "10.1.0.1/24", 5]
  cache_size      = 1.5
  packet_window   = 10001
  offload_mark    = "0x00c00000"
  retention       = 30
  database        = "flows.db"
}

rule_learning {
  log_group = 5
}
