# Zones that cannot be, and zones that cannot be beside each other.

zone "lan" {
  interfaces = ["lan0", "wl*"]

  services {
    dns = true
    dsn = true
    ssh = true
  }

  management = { web = true }
}

zone "lan" {
  interface = "lan1"
}

zone "wlan" {
  interface = "wlan0"
}

zone "lab" {
  networks = [
    "10.1.0.0/24",
    "10.2.0.0/24",
    "fd01::/64",
  ]
}

zone "hall" {
  networks = [
    "192.0.2.0/24",
    "10.2.0.0/16",
    "fd01::5",
  ]
}

zone "firewall" {
  interface = "x*y"
}

zone "nothing" {
  external = "no"
}

zone "twice" {
  interface  = "eth0"
  interfaces = ["eth1"]
}
