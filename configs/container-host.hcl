# A machine on the Internet that runs containers. The container engine keeps tables of its own, with published ports
# and the containers' way out; they are left alone, and both have to agree: what either of the two drops is dropped.
#
# So Glacic lets through what the engine publishes (`translated`: its port forwards), decides what containers may open
# themselves, and guards the machine. Bridges come and go with the engine's networks: their names end in a wildcard.

rule_learning {
  enabled       = true
  learning_mode = false # switch it on for a while: glacic learn on --for 24h
  inline_mode   = true
  log_group     = 100

  ignore_networks = ["224.0.0.0/4", "ff00::/8"]
}

zone "internet" {
  interfaces = ["eth*", "en*"]
  external   = true
  antispoof  = true # the bridges' networks lie behind the bridges, whatever a neighbour says
}

# A container can be given any MAC, and its address comes from the engine.
zone "containers" {
  interfaces  = ["docker*", "br-*", "podman*", "cni*"]
  identity    = "ip"
  antispoof   = true
  description = "The engine's bridges; each container is a host there"

  services {
    dns = true
  }
}

zone "admins" {
  interface = "wg0"
  identity  = "ip"

  management {
    ssh        = true
    icmp       = true
    prometheus = true
  }
}

policy "internet" "firewall" {
  action = "drop"

  rule "vpn" {
    proto     = "udp"
    dest_port = 51820
    action    = "accept"
  }

  rule "ssh" {
    proto                  = "tcp"
    dest_port              = 22
    limit_per_source       = "6/minute"
    connections_per_source = 5
    log                    = true
    counter                = true
    action                 = "accept"
  }
}

# Published ports, and no container that is not published, even for a neighbour who knows the way to its address.
policy "internet" "containers" {
  action = "drop"

  rule "published" {
    translated             = true
    connections_per_source = 200
    counter                = true
    action                 = "accept"
  }
}

policy "admins" "containers" {
  action = "accept"
}

# What containers open is learned by container address, service and destination, and waits for an administrator.
policy "containers" "internet" {
  action      = "reject"
  granularity = "destination"

  rule "no mail" {
    proto     = "tcp"
    dest_port = [25, 465, 587]
    log       = true
    counter   = true
    action    = "reject"
  }
}

# From bridge to bridge, or on one bridge where the kernel shows us what it carries (br_netfilter): the engine keeps its
# networks apart by itself.
policy "containers" "containers" {
  action = "accept"
}

policy "containers" "admins" {
  action = "drop"
  learn  = false
}

policy "containers" "firewall" {
  action = "reject"
}
