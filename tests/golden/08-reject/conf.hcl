# A policy that learns and rejects, in nflog mode, with a group and a rate of its own.

rule_learning {
  enabled         = true
  log_group       = 7
  rate_limit      = "1/hour"
  ignore_networks = ["224.0.0.0/4", "ff00::/8"]
}

zone "lan" {
  interface = "lan0"
}

zone "iot" {
  interface = "iot0"
}

policy "lan" "iot" {
  name   = "people to things"
  action = "reject"
}
