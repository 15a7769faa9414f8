zone "wan" {
  interface = "wan0"
  external  = true
}
