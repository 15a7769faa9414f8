zone "lan" {
  interface = "lan0"

  services {
    dns = true

  management {
    ssh = true
  }
}

zone "wan" {
  interface = "wan0"
  external  = true
}
