zone "wan" {
  interface = "lan0"
  external  = true
}

set "wbe" {
  type = "port"
}
