# Values without quotes, in every form that people write them.

rule_learning {
  enabled    = yes
  learn_for  = 24h
  rate_limit = 10/minute
  fail_mode  = open
}

zone "lan" {
  interfaces = [lan0, wl*]
  networks   = [10.1.0.0/24, fd01::/64]
  identity   = 'mac'
  services   { dns = true, ntp = true }
}

policy "lan" "firewall" {
  rule "r" {
    proto     = tcp
    dest_port = 6000-6010
    src_ip    = @servers
    comment   = "for ${name}"
    limit     = max(10, 20)
    action    = accept
  }
}
