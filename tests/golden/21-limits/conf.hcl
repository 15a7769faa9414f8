# Bandwidth limits alone: no word about which packets may pass, so all do.

limit "backup" {
  unit     = "backup.service"
  upload   = "5 mbit"
  download = "2 MiB/s"
  traffic  = "internet"
}

default_limit {
  per      = "unit"
  download = "50 mbit"
}
