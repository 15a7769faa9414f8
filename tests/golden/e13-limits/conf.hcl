# Limits: targets, rates and engines that cannot be.

limit "backup" {
  unit   = "backup"
  upload = "5 Mb/s"
}

limit "outside" {
  cgroup   = "/sys/fs/cgroup/../x"
  download = "0 mbit"
}

limit "web" {
  slice     = "web.slice"
  download  = "20 GiB/s"
  interface = "eth0"
}

limit "web again" {
  cgroup = "web.slice"
  upload = "5 mbti"
}

limit "all" {
  unit   = "a.service"
  upload = 5
  engine = "police"
}

limit "nothing" {
  unit    = "b.service"
  trafic  = "local"
}

default_limit {
  per = "units"
}
