# Named sets: both families, ports, empty, long, and with elements that overlap.

zone "lan" {
  interface = "lan0"
}

set "trusted" {
  type        = "address"
  description = "those we know"
  elements    = ["10.1.0.0/24", "10.1.0.7", "fd01::/64", "192.0.2.10-192.0.2.20"]
}

set "empty" {
  type = "ipv6_addr"
}

set "many" {
  type     = "inet_service"
  elements = [1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31, 33, 35, 37, 39, 41, 43, 45, 47, 49, 51, "60-70", "65-80", 82, 84, 86, 88]
}

policy "lan" "firewall" {
  rule "known" {
    proto     = "tcp"
    src_ip    = "@trusted"
    dest_port = "@many"
    action    = "accept"
  }

  rule "nobody" {
    src_ip = "@empty"
    action = "accept"
  }
}
