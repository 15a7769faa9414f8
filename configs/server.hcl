# A server on the Internet that guards itself: what it offers, who may manage it, and what it says to others.
#
# No learning from outside, where one gateway's address stands for everybody. What the server itself opens is learned,
# so a break-in that wants to phone home has to wait for your approval.

rule_learning {
  enabled       = true
  learning_mode = false # switch it on for a while: glacic learn on --for 24h
  inline_mode   = true
  log_group     = 100
  queues        = 2
  fail_mode     = "open"

  rate_limit      = "100/second"
  ignore_networks = ["224.0.0.0/4", "ff00::/8"]
  retention_days  = 14
}

zone "internet" {
  interfaces = ["eth*", "en*"]
  external   = true
  antispoof  = true # leave it out with two providers
}

# The administrators' VPN. No Ethernet, so a source is named by its address.
zone "admins" {
  interface = "wg0"
  identity  = "ip"

  management {
    ssh     = true
    icmp    = true
    cockpit = true
  }
}

set "offices" {
  type     = "address"
  elements = ["192.0.2.0/25", "198.51.100.7", "2001:db8:40::/48", "203.0.113.10-203.0.113.19"]
}

set "offered" {
  type     = "inet_service"
  elements = [80, 443]
}

policy "internet" "firewall" {
  action = "drop"

  rule "web" {
    proto                  = "tcp"
    dest_port              = "@offered"
    connections_per_source = 200
    counter                = true
    action                 = "accept"
  }

  rule "http3" {
    proto     = "udp"
    dest_port = 443
    action    = "accept"
  }

  rule "vpn" {
    proto     = "udp"
    dest_port = 51820
    action    = "accept"
    comment   = "WireGuard answers only those it knows"
  }

  rule "ssh from the offices" {
    proto     = "tcp"
    dest_port = 22
    src_ip    = "@offices"
    limit     = "10/minute"
    log       = true
    action    = "accept"
  }

  rule "ssh from elsewhere" {
    proto                  = "tcp"
    dest_port              = 22
    limit_per_source       = "3/minute"
    connections_per_source = 2
    log                    = "ssh from elsewhere: "
    log_group              = 5 # for a program that listens there
    counter                = true
    action                 = "accept"
  }

  rule "ping" {
    proto            = ["icmp", "icmpv6"]
    icmp_type        = "echo-request"
    limit_per_source = "5/second"
    action           = "accept"
  }
}

policy "firewall" "internet" {
  action = "reject"
  learn  = true

  rule "names and time" {
    proto     = "udp"
    dest_port = [53, 123]
    action    = "accept"
  }
}

policy "firewall" "admins" {
  action = "accept"
}

# What other files in conf.d/ beside this one say, as if it stood here; there may be none.

include = "conf.d/*.hcl"
