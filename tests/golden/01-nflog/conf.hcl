# What an internal zone sends and nobody decides is logged and dropped; the outside is dropped without a word.

rule_learning {
  enabled       = true
  learning_mode = true    # TOFU mode
  log_group     = 100     # inline: the queue number; otherwise the nflog group (default 0)
}

zone "lan" {
  interface = "lan0"
}

zone "wan" {
  interface = "wan0"
  external  = true
}

policy "lan" "wan" {
  name   = "lan_wan"
  action = "drop"
  learn  = true

  rule "web" {
    proto     = "tcp"
    dest_port = [80, 443]
    action    = "accept"
  }
}
