# Rules: what cannot apply, what can never match, and what is not a value.

zone "lan" {
  interface = "lan0"
}

zone "wan" {
  interface = "wan0"
  external  = true
}

set "servers" {
  type     = "ipv4_addr"
  elements = ["10.1.0.5"]
}

policy "lan" "wan" {
  rule "types" {
    proto     = "icmp"
    icmp_type = ["echo-request", "packet-too-big"]
    dest_ip   = "fd00::/8"
    action    = "accept"
  }

  rule "ports" {
    proto       = ["tcp", "upd"]
    dest_port   = [80, 70000, "90-80", "https", "@servers"]
    source_port = []
    action      = "acept"
  }

  rule "families" {
    src_ip  = "@servres"
    dest_ip = ["10.1.0.0/255.255.255.0", "fe80::1%eth0", "example.org", "10.0.0.9-10.0.0.1"]
    action  = "accept"
  }

  rule "never" {
    src_ip   = "@servers"
    dest_ip  = "2001:db8::/32"
    ct_state = "established"
    action   = "accept"
  }

  rule "interfaces" {
    in_interface  = "wan0"
    out_interface = "wan0"
    dest_port     = 80
    limit         = "10 per second"
    log           = "a \"quoted\" prefix"
    dport         = 80
    action        = "accept"
  }

  rule "interfaces" {
    disabled = true
  }
}

policy "lan" "firewall" {
  rule "out" {
    out_interface = "lan0"
    action        = "accept"
  }
}
