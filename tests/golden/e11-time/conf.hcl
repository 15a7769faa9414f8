# Times that cannot be.

zone "lan" {
  interface = "lan0"
}

policy "lan" "firewall" {
  rule "nowhere" {
    action = "accept"

    time {
      days = ["mon-fry", "Sunday"]
      from = "8:00"
    }
  }

  rule "never" {
    action = "accept"

    time {
      from = "18:00"
      to   = "18:00"
      zone = "Europe/Zürich"
    }
  }

  rule "always" {
    action = "accept"
    time   = "always"
  }
}
