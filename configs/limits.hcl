# A machine whose services share one line to the Internet, and nothing but limits: which packets may pass is not this
# file's matter (without zones and policies Glacic lets everything through), so it can stand beside any firewall.
#
#   glacic check -c limits.hcl          what is wrong with it, and which names look like slips
#   glacic limits list                  what holds now, and how
#   glacic limits watch                 the rates as they are

# The nightly backup may take a part of the line, and as much as it likes of the local network, where its server may be.
limit "backup" {
  unit        = "backup.service"
  upload      = "5 mbit"
  download    = "2 MiB/s"
  traffic     = "internet"
  description = "The line has 20 mbit up"
}

# All instances of a service, and whatever they start, share one bucket: they are in a slice of their own.
limit "sync" {
  slice    = "sync.slice"
  upload   = "8 mbit"
  download = "40 mbit"
}

# Updates are not in a hurry.
limit "updates" {
  unit     = "apt-daily.service"
  download = "1 MiB/s"
}

# A container, by its path below the cgroup2 mount. It has a network namespace of its own, into which only eBPF sees.
limit "guest" {
  cgroup   = "lxc.payload.guest"
  upload   = "10 mbit"
  download = "10 mbit"
  engine   = "bpf"
}

# Nobody else gets the whole line: each unit has a bucket of its own.
default_limit {
  per      = "unit"
  download = "80 mbit"
  traffic  = "internet"
}
