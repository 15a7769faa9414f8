include = ["conf.d/*.hcl", "missing.d/*.hcl"]

zone "lan" {
  interface = "lan0"
}

set "blocked" {
  type          = "ipv4"
  elements_file = ["blocked.txt", "gone.txt"]
}

policy "lan" "wan" {
  rule "web" {
    proto     = "tcp"
    dest_port = "@web"
    action    = "accept"
  }
}
