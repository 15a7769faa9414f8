# Every service and every management name.

zone "lan" {
  interface = "lan0"

  services {
    bgp = true
    dhcp = true
    dhcp_client = true
    dns = true
    dns_over_tls = true
    ftp = true
    http = true
    https = true
    icmp = true
    imap = true
    imaps = true
    ipp = true
    ipsec = true
    kerberos = true
    ldap = true
    ldaps = true
    llmnr = true
    mdns = true
    mqtt = true
    mqtts = true
    netbios = true
    nfs = true
    ntp = true
    openvpn = true
    ping = true
    radius = true
    rsync = true
    smb = true
    smtp = true
    socks = true
    squid = true
    ssdp = true
    submission = true
    syslog = true
    syslog_tls = true
    tftp = true
    upnp = true
    wireguard = true
    ws_discovery = true
    bfd = true
    git = true
    igmp = true
    iperf3 = true
    mysql = true
    nut = true
    ospf = true
    pop3 = true
    pop3s = true
    postgresql = true
    ptp = true
    rdp = true
    sip = true
    snmp_trap = true
    stun = true
    vrrp = true
    xmpp = true
  }

  management {
    cockpit = true
    http = true
    https = true
    icmp = true
    ping = true
    prometheus = true
    snmp = true
    ssh = true
    telnet = true
    web = true
    netconf = true
    webmin = true
    zabbix_agent = true
  }
}
