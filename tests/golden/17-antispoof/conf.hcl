# False sources are dropped at home and from the provider, and not from the VPN, which answers go around.

zone "lan" {
  interfaces = ["lan0", "wl*"]
  antispoof  = true
}

zone "wan" {
  interface = "wan0"
  external  = true
  antispoof = true

  services { dhcp_client = true }
}

zone "vpn" {
  interface = "wg0"
  identity  = "ip"
}
