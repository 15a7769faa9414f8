# Several files: zones and policies of conf.d/ stand where `include` stands, and sets have their elements in lists.

include = "conf.d/*.hcl"

zone "lan" {
  interface = "lan0"
}

set "blocked" {
  type          = "address"
  elements      = ["192.0.2.0/26"]
  elements_file = ["lists/blocked.txt", "lists/more.txt"]
}

policy "wan" "lan" {
  rule "blocked" {
    src_ip = "@blocked"
    action = "drop"
  }

  rule "web" {
    proto     = "tcp"
    dest_port = "@web"
    action    = "accept"
  }
}
