# A home router that learns. Three networks at home, one cable to the provider.
#
# Nothing at home has to be listed: a device that opens a connection for the first time is remembered, and what it did
# once it may do again. After a day learning ends by itself, and what is new from then on waits for your approval
# (`glacic flows list --state pending`).

rule_learning {
  enabled       = true
  learning_mode = true # TOFU mode
  inline_mode   = true # nfqueue: hold the first packet and ask
  log_group     = 100  # inline: the queue number; otherwise the nflog group (default 0)
  learn_for     = "24h"
}

# Zones: where packets come from and go to.

zone "wan" {
  interface = "wan0"
  external  = true # nothing that comes from here is ever learned

  services { dhcp_client = true } # the provider gives this router its address
}

zone "lan" {
  interfaces = ["lan0", "wl*"]

  services {
    dhcp = true
    dns  = true
    ntp  = true
    mdns = true
  }

  management {
    ssh  = true
    web  = true
    icmp = true
  }
}

zone "iot" {
  interface = "iot0"

  services {
    dhcp = true
    dns  = true
    ntp  = true
  }
}

zone "guest" {
  interface = "guest0"

  services {
    dhcp = true
    dns  = true
  }
}

# Policies: who may talk to whom. What no rule decides is learned, or waits.

policy "lan" "wan" {
  action = "drop"
  learn  = true

  rule "web" {
    proto     = "tcp"
    dest_port = [80, 443]
    action    = "accept"
  }

  rule "ping" {
    proto     = ["icmp", "icmpv6"]
    icmp_type = "echo-request"
    action    = "accept"
  }
}

policy "iot" "wan" {
  description = "A camera talks to its maker and to nobody else"
  action      = "drop"
  granularity = "destination"

  rule "no mail" {
    proto     = "tcp"
    dest_port = [25, 465, 587]
    action    = "reject"
    log       = "mail from a thing: "
  }
}

policy "lan" "iot" {
  action = "reject" # the family's phones get an answer at once
}

policy "iot" "lan" {
  action = "drop"
  learn  = false # things do not open connections to people
}

policy "guest" "wan" {
  action = "accept"
  learn  = false
}

nat "internet" {
  type          = "masquerade"
  out_interface = "wan0"
}

# What other files in conf.d/ beside this one say, as if it stood here; there may be none.

include = "conf.d/*.hcl"
