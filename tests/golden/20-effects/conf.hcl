# What a rule can do besides matching.

rule_learning {
  log_group = 7
}

zone "lan" {
  interface = "lan0"
}

zone "wan" {
  interface = "wan0"
  external  = true
}

policy "wan" "firewall" {
  rule "ssh" {
    proto                  = "tcp"
    dest_port              = 22
    limit_per_source       = "10/minute"
    connections_per_source = 3
    limit                  = "100/minute"
    counter                = true
    log                    = "ssh: "
    log_group              = 8
    action                 = "accept"
    comment                = "ten a minute and three at a time from one source, a hundred a minute from all"
  }

  rule "ping" {
    proto            = "icmp"
    limit_per_source = "5/second"
    action           = "accept"
  }

  rule "web" {
    proto                  = "tcp"
    dest_port              = [80, 443]
    connections_per_source = 100
    counter                = true
    action                 = "accept"
  }

  rule "published" {
    proto      = "tcp"
    translated = true
    action     = "accept"
  }

  rule "nobody is there" {
    proto       = "udp"
    reject_with = "port-unreachable"
    action      = "reject"
  }

  rule "closed" {
    proto       = "tcp"
    reject_with = "tcp-reset"
    log         = true
    log_level   = "info"
    counter     = true
    action      = "reject"
  }
}
