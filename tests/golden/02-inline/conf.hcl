# The same in inline mode: the packet waits in a queue for its answer.

rule_learning {
  enabled       = true
  learning_mode = true    # TOFU mode
  inline_mode   = true    # nfqueue: hold the first packet and ask
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
