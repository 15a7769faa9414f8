# Everything a rule can match by.

zone "lan" {
  interfaces = ["lan0", "wl*"]
}

zone "wan" {
  interfaces = ["wan0", "wwan0"]
  external   = true
}

set "bosses" {
  type     = "ipv4_addr"
  elements = ["10.1.0.5", "10.1.0.6", "10.1.0.16/28"]
}

policy "lan" "wan" {
  action = "reject"

  rule "one" {
    proto     = "tcp"
    dest_port = 443
    action    = "accept"
    comment   = "one port"
  }

  rule "many" {
    proto       = ["tcp", "udp", "sctp"]
    source_port = "1024-65535"
    dest_port   = [53, "6000-6010", 6011, 53]
    action      = "accept"
  }

  rule "both families" {
    proto     = "tcp"
    dest_port = 22
    src_ip    = ["10.1.0.0/24", "10.1.1.0/24", "fd01::/64", "@bosses"]
    dest_ip   = ["192.0.2.1-192.0.2.9", "2001:db8::/32"]
    limit     = "10/minute"
    log       = true
    action    = "accept"
  }

  rule "ping" {
    proto     = ["icmp", "icmpv6"]
    icmp_type = ["echo-request", "mld-listener-query"]
    action    = "accept"
  }

  rule "tunnels" {
    proto  = ["gre", "esp", "ospf"]
    action = "drop"
    log    = "no tunnels: "
  }

  rule "here only" {
    in_interface  = "wl*"
    out_interface = ["wan0"]
    ct_state      = ["new", "untracked"]
    proto         = "udp"
    action        = "accept"
  }

  rule "not now" {
    proto    = "tcp"
    action   = "accept"
    disabled = true
  }
}
