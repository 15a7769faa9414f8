# A plain firewall.

zone "lan" {
  interface = "lan0"

  services {
    dns = true
  }
}

zone "wan" {
  interface = "wan0"
  external  = true

  management {
    ssh = true
  }
}

policy "lan" "wan" {
  action = "accept"
}

policy "lan" "firewall" {
  action = "reject"
}
