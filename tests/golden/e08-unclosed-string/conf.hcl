zone "lan" {
  interface = "lan0
  external  = false
  identity  = "mac"
}
