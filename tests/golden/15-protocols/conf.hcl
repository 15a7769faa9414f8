# Every protocol and every ICMP type.

zone "lan" {
  interface = "lan0"
}

policy "lan" "firewall" {
  rule "protocols" {
    proto  = ["icmp", "igmp", "ipip", "tcp", "egp", "igp", "udp", "ipv6", "rsvp", "gre", "esp", "ah", "icmpv6", "eigrp", "ospf", "etherip", "pim", "ipcomp", "vrrp", "l2tp", "sctp", "udplite"]
    action = "accept"
  }

  rule "icmp types" {
    proto     = "icmp"
    icmp_type = ["echo-reply", "destination-unreachable", "source-quench", "redirect", "echo-request", "router-advertisement", "router-solicitation", "time-exceeded", "parameter-problem", "timestamp-request", "timestamp-reply", "info-request", "info-reply", "address-mask-request", "address-mask-reply", 200]
    action    = "accept"
  }

  rule "icmpv6 types" {
    proto     = "icmpv6"
    icmp_type = ["destination-unreachable", "packet-too-big", "time-exceeded", "parameter-problem", "echo-request", "echo-reply", "mld-listener-query", "mld-listener-report", "mld-listener-done", "mld-listener-reduction", "nd-router-solicit", "nd-router-advert", "nd-neighbor-solicit", "nd-neighbor-advert", "nd-redirect", "router-renumbering", "ind-neighbor-solicit", "ind-neighbor-advert", "mld2-listener-report", 200]
    action    = "accept"
  }
}
