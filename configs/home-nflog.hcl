# The same home router as in home.hcl, without inline mode: the first packet of a new flow is logged and dropped,
# learned from the log, and the connection comes up with its retransmission. One line makes the difference.
#
# Nothing at home has to be listed: a device that opens a connection for the first time is remembered, and what it did
# once it may do again. After a day learning ends by itself, and what is new from then on waits for your approval
# (`glacic flows list --state pending`).

rule_learning {
  enabled       = true
  learning_mode = true # TOFU mode
  log_group     = 0    # the nflog group
  learn_for     = "24h"
}

# Zones: where packets come from and go to.

# The provider gives this router its address (DHCP), and over IPv6 a prefix for the networks at home (DHCPv6 prefix
# delegation, from a link-local address to UDP 546). Router advertisements, neighbour discovery and the ICMP errors that
# path MTU discovery needs are always let in; nothing has to be said about them.
zone "wan" {
  interface = "wan0"
  external  = true # nothing that comes from here is ever learned
  antispoof = true # and nothing that claims to come from home

  services { dhcp_client = true }
}

zone "lan" {
  interfaces = ["lan0", "wl*"]
  antispoof  = true

  services {
    dhcp = true
    dns  = true
    ntp  = true
    mdns = true
  }

  management {
    ssh  = true
    web  = true
    icmp = true
  }
}

zone "iot" {
  interface = "iot0"
  antispoof = true

  services {
    dhcp = true
    dns  = true
    ntp  = true
  }
}

zone "guest" {
  interface = "guest0"
  antispoof = true

  services {
    dhcp = true
    dns  = true
  }
}

# Policies: who may talk to whom. What no rule decides is learned, or waits.

policy "lan" "wan" {
  action = "drop"
  learn  = true

  rule "web" {
    proto     = "tcp"
    dest_port = [80, 443]
    action    = "accept"
  }

  rule "ping" {
    proto     = ["icmp", "icmpv6"]
    icmp_type = "echo-request"
    action    = "accept"
  }
}

policy "iot" "wan" {
  description = "A camera talks to its maker and to nobody else"
  action      = "drop"
  granularity = "destination"

  rule "no mail" {
    proto     = "tcp"
    dest_port = [25, 465, 587]
    action    = "reject"
    log       = "mail from a thing: "
  }
}

policy "lan" "iot" {
  action = "reject" # the family's phones get an answer at once
}

policy "iot" "lan" {
  action = "drop"
  learn  = false # things do not open connections to people
}

policy "guest" "wan" {
  action = "drop"
  learn  = false

  rule "guests" {
    connections_per_source = 500 # a phone has some dozens; what floods the line has thousands
    action                 = "accept"
  }
}

policy "wan" "firewall" {
  action = "drop"

  rule "ping" {
    proto            = ["icmp", "icmpv6"]
    icmp_type        = "echo-request"
    limit_per_source = "2/second"
    action           = "accept"
  }
}

# IPv4: one address for all, and a forwarded port for the photo album. Those at home use the same address.

nat "internet" {
  type          = "masquerade"
  out_interface = "wan0"
}

nat "photo album" {
  type         = "dnat"
  in_interface = "wan0"
  proto        = "tcp"
  dest_port    = 8443
  to_ip        = "10.1.0.5"
  to_port      = 443
  hairpin      = true
}

# IPv6: every host has an address of its own, so nothing is translated, and a rule is what lets somebody in. The
# address is the album's in the prefix that the provider has given; write yours.

policy "wan" "lan" {
  action = "drop"

  rule "photo album" {
    proto                  = "tcp"
    dest_port              = 8443
    dest_ip                = "2001:db8:1:1::5"
    connections_per_source = 50
    counter                = true
    action                 = "accept"
  }

  rule "ping" {
    proto            = "icmpv6"
    icmp_type        = "echo-request"
    limit_per_source = "2/second"
    action           = "accept"
    comment          = "RFC 4890: hosts may be pinged, and find out why they cannot be reached"
  }
}
