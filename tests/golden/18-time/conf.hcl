# Rules that hold at some times only. This is the week in which Europe puts its clocks forward.

zone "lan" {
  interface = "lan0"
}

zone "wan" {
  interface = "wan0"
  external  = true
}

policy "lan" "wan" {
  action = "accept"

  rule "bedtime" {
    proto  = ["tcp", "udp"]
    src_ip = ["10.1.0.64/26", "fd01:0:0:1::/64"]
    action = "reject"

    time {
      days = ["sun-thu"]
      from = "21:00"
      to   = "06:30"
      zone = "Europe/Zurich"
    }
  }
}

policy "wan" "lan" {
  rule "office hours" {
    proto     = "tcp"
    dest_port = 22
    action    = "accept"

    time {
      days = ["mon-fri"]
      from = "08:00"
      to   = "18:00"
      zone = "Europe/Zurich"
    }
  }

  rule "switched off" {
    proto    = "tcp"
    action   = "accept"
    disabled = true

    time {
      days = "sat"
      zone = "UTC"
    }
  }
}
