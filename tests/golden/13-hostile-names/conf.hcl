# Names that try to leave their place.

rule_learning {
  enabled = true
}

zone "lan; drop" {
  interface   = "lan0"
  description = "a \" } # \\ zone"
}

zone "wan { } '" {
  interface = "wan0"
  external  = true
}

policy "lan; drop" "wan { } '" {
  name        = "queue num 0; counter drop # }"
  description = "} chain evil { accept; }"

  rule "accept comment ' ; accept ; # /" {
    proto   = "tcp"
    action  = "drop"
    log     = "; accept # "
    comment = "\" accept # \\"
  }

  rule "ünïcödé ☃" {
    proto   = "udp"
    action  = "drop"
    comment = "äöü"
  }

  rule "; drop @x { } _of_" {
    limit_per_source       = "1/hour"
    connections_per_source = 2
    counter                = true
    log                    = true
    log_group              = 9
    action                 = "accept"

    time {
      days = "mon"
      zone = "Etc/GMT+12"
    }
  }
}

policy "wan { } '" "lan; drop" {
  name   = "(id) `id` @set"
  action = "accept"
}
