# Sets of the wrong kind, and translations that cannot be.

zone "wan" {
  interface = "wan0"
  external  = true
}

set "web" {
  type     = "port"
  elements = [80, "192.0.2.1", 70000]
}

set "hosts" {
  type     = "ipv4"
  elements = ["192.0.2.1", "2001:db8::1", "10.0.0.1/8"]
}

set "no-type" {
  elements = [1]
}

nat "out" {
  type  = "masquerade"
  to_ip = "192.0.2.1"
}

nat "fixed" {
  type          = "snat"
  out_interface = "wan0"
  src_ip        = "fd00::/8"
  to_ip         = "192.0.2.1"
}

nat "ping" {
  type         = "dnat"
  in_interface = "wan0"
  proto        = "icmp"
  dest_port    = "@hosts"
  to_ip        = "10.1.0.0/24"
}

nat "several" {
  type         = "port_forward"
  in_interface = "wan0"
  proto        = "tcp"
  dest_port    = [80, 443]
  to_ip        = "10.1.0.5"
  to_port      = 8080
}

nat "several" {
  type = "hairpin"
}
