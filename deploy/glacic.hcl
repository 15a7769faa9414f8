# What a fresh installation does: everything is let through, nothing is learned. So installing Glacic over ssh changes
# nothing for anybody, and the service can be looked at before it is given something to do.
#
# Write your own firewall here. Begin with a file of /usr/share/doc/glacic/configs, try it with `glacic check`, and put it
# in force with `systemctl reload glacic` or `glacic reload`.

zone "anywhere" {
  networks = ["0.0.0.0/0", "::/0"]
}

policy "anywhere" "firewall" {
  action = "accept"
}

policy "anywhere" "anywhere" {
  action = "accept"
}
