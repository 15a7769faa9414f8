# An office with three zones behind one router: people, servers, guests. Nothing is learned but what the servers say
# to others: people may do what the rules say, and everything else is refused at once, so that nobody waits for a
# timeout.
#
# Addresses: staff 10.20.1.0/24, servers 10.20.2.0/24, guests 10.20.3.0/24; a fixed IPv4 address and a routed IPv6
# prefix from the provider. Documentation addresses stand for those: write your own.

flowtable = false # true: established connections go past the chains, where the kernel can (glacic doctor)
integrity = "restore"

rule_learning {
  enabled       = true
  learning_mode = false # switch it on for a while: glacic learn on --for 24h
  inline_mode   = true
  log_group     = 100
  learn_for     = "24h"

  ignore_networks = ["224.0.0.0/4", "ff00::/8"]
}

zone "internet" {
  interface = "wan0"
  external  = true
  antispoof = true
}

zone "staff" {
  interface = "lan0"
  antispoof = true

  services {
    dhcp = true
    dns  = true
    ntp  = true
  }
}

zone "servers" {
  interface = "srv0"
  antispoof = true

  services {
    dns = true
    ntp = true
  }
}

zone "guests" {
  interfaces = ["guest0", "wl*"]
  antispoof  = true

  services {
    dhcp = true
    dns  = true
  }
}

set "admins" {
  type        = "address"
  elements    = ["10.20.1.10-10.20.1.12", "2001:db8:20:1::10"]
  description = "The administrators' own machines"
}

set "mail_ports" {
  type     = "inet_service"
  elements = [25, 465, 587, 993]
}

# To the firewall itself.

policy "staff" "firewall" {
  action = "reject"
  learn  = false

  rule "administrators" {
    proto     = "tcp"
    dest_port = [22, 443]
    src_ip    = "@admins"
    action    = "accept"
  }

  rule "ping" {
    proto            = ["icmp", "icmpv6"]
    icmp_type        = "echo-request"
    limit_per_source = "5/second"
    action           = "accept"
  }
}

policy "guests" "firewall" {
  action = "drop"
  learn  = false
}

policy "internet" "firewall" {
  action = "drop"

  rule "ping" {
    proto            = ["icmp", "icmpv6"]
    icmp_type        = "echo-request"
    limit_per_source = "2/second"
    limit            = "50/second"
    action           = "accept"
  }
}

# Staff.

policy "staff" "internet" {
  action = "reject"
  learn  = false

  rule "web" {
    proto     = ["tcp", "udp"]
    dest_port = [80, 443]
    action    = "accept"
  }

  rule "no mail but through our server" {
    proto     = "tcp"
    dest_port = 25
    log       = true
    log_level = "notice"
    counter   = true
    action    = "reject"
  }

  rule "calls" {
    proto     = "udp"
    dest_port = "3478-3481"
    action    = "accept"
  }
}

policy "staff" "servers" {
  action = "reject"
  learn  = false

  rule "web and files" {
    proto     = "tcp"
    dest_port = [80, 443, 445]
    action    = "accept"
  }

  rule "mail" {
    proto     = "tcp"
    dest_port = "@mail_ports"
    action    = "accept"
  }

  rule "administrators" {
    proto     = "tcp"
    dest_port = 22
    src_ip    = "@admins"
    action    = "accept"
  }

  rule "the contractor, in office hours" {
    proto     = "tcp"
    dest_port = 3389
    src_ip    = "10.20.1.200"
    counter   = true
    action    = "accept"

    time {
      days = "mon-fri"
      from = "08:00"
      to   = "18:00"
      zone = "Europe/Zurich"
    }
  }
}

# Servers: what they open themselves is learned, and waits for an administrator.

policy "servers" "internet" {
  action      = "drop"
  granularity = "destination"

  rule "mail" {
    proto     = "tcp"
    dest_port = 25
    src_ip    = ["10.20.2.25", "2001:db8:20:2::25"]
    action    = "accept"
  }

  rule "updates" {
    proto     = "tcp"
    dest_port = [80, 443]
    action    = "accept"
  }
}

policy "servers" "staff" {
  action = "drop"
  learn  = false # servers answer, they do not call
}

# Guests: the web, in the time when there are guests, and nobody in the house.

policy "guests" "internet" {
  action = "reject"
  learn  = false

  rule "open hours" {
    connections_per_source = 200
    action                 = "accept"

    time {
      from = "07:00"
      to   = "22:00"
      zone = "Europe/Zurich"
    }
  }
}

policy "guests" "servers" {
  action = "reject"
  learn  = false
}

# From outside: the web server, for inside and outside by the same name and address.

nat "internet" {
  type          = "snat"
  out_interface = "wan0"
  src_ip        = "10.20.0.0/16"
  to_ip         = "192.0.2.20"
}

nat "web server" {
  type         = "dnat"
  in_interface = "wan0"
  dest_ip      = "192.0.2.20"
  proto        = "tcp"
  dest_port    = [80, 443]
  to_ip        = "10.20.2.80"
  hairpin      = true
}

nat "mail server" {
  type         = "dnat"
  in_interface = "wan0"
  dest_ip      = "192.0.2.20"
  proto        = "tcp"
  dest_port    = 25
  to_ip        = "10.20.2.25"
}

policy "internet" "servers" {
  action = "drop"

  # IPv6 needs no forwarded ports: a rule lets in what is for the server's own address.
  rule "web server" {
    proto                  = "tcp"
    dest_port              = [80, 443]
    dest_ip                = "2001:db8:20:2::80"
    connections_per_source = 100
    action                 = "accept"
  }

  rule "mail server" {
    proto            = "tcp"
    dest_port        = 25
    dest_ip          = "2001:db8:20:2::25"
    limit_per_source = "60/minute"
    action           = "accept"
  }
}
