# Policies: who they are between, what they are called, and where learning cannot be.

rule_learning {
  enabled = true
}

zone "lan" {
  interface = "lan0"
}

zone "wan" {
  interface = "wan0"
  external  = true
}

policy "lan" "wan" {
  name = "DROP_INPUT"
}

policy "lan" "wan" {
  action = "accept"
}

policy "lna" "internet" {
  action = "drop"
}

policy "firewall" "firewall" {
  action = "drop"
}

policy "lan" "firewall" {
  action      = "accept"
  learn       = true
  granularity = "destination"
}

policy "wan" "firewall" {
  learn = true
}

policy "wan" "lan" {
  granularity = "destination"
}

policy "wan" {
  action = "drop"
}
