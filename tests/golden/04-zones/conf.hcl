# By interface, by network, by both: the most exact word counts.

rule_learning {
  enabled = true
}

zone "lan" {
  interfaces  = ["lan0", "lan1", "wl*", "wlan5"]
  description = "people"
}

zone "servers" {
  interface = "lan0"
  networks  = ["10.1.9.0/25", "10.1.9.128/25", "fd01:9::/64"]

  services {
    dhcp = true
  }
}

zone "branch" {
  networks = ["10.8.0.0/16", "fd08::/32"]
  identity = "ip"
}

zone "wan" {
  interface = "wan0"
  external  = true
}

policy "lan" "servers" {
  action = "accept"
}

policy "lan" "wan" {
  action = "accept"
}

policy "branch" "lan" {
  description = "one direction only"
}

policy "lan" "lan" {
  action = "reject"
}
