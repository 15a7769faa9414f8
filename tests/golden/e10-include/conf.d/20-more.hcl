zone "wan" {
  interface = "wan1"
}

policy "lan" "wan" {
  action = "maybe"
}
