# Translation of sources and destinations, in both families.

zone "lan" {
  interface = "lan0"
}

zone "wan" {
  interface = "wan0"
  external  = true
}

nat "internet" {
  type          = "masquerade"
  family        = "both"
  out_interface = "wan0"
}

nat "fixed" {
  type          = "snat"
  out_interface = "wan0"
  src_ip        = "10.1.0.0/24"
  to_ip         = "192.0.2.1"
}

nat "web" {
  type         = "port_forward"
  in_interface = "wan0"
  proto        = "tcp"
  dest_port    = 8080
  to_ip        = "10.1.0.2"
  to_port      = 80
  description  = "the photo album"
}

nat "game" {
  type         = "dnat"
  in_interface = ["wan0", "wwan*"]
  src_ip       = "2001:db8:1::/48"
  proto        = ["tcp", "udp"]
  dest_port    = ["6000-6010", 6020]
  to_ip        = "fd01::2"
}

nat "mail, from within too" {
  type         = "dnat"
  in_interface = "wan0"
  proto        = "tcp"
  dest_port    = [25, 587]
  to_ip        = "10.1.0.3"
  hairpin      = true
}

nat "moved" {
  type         = "dnat"
  in_interface = "wan0"
  dest_ip      = "192.0.2.7"
  proto        = ["tcp", "udp"]
  dest_port    = "6000-6003"
  to_ip        = "10.1.0.4"
  to_port      = "7000-7003"
  hairpin      = true
}
