/* Sends packets through AF_PACKET as fast as asked, and says how many: the bench's only source of traffic.
 *
 *   traffic INTERFACE DESTINATION_MAC --source A.B.C.D --destination A.B.C.D [options]
 *
 *   --protocol udp|syn     (udp) syn: TCP connection requests; a payload goes with them, as in TCP Fast Open
 *   --ports FIRST-LAST     (9) destination ports
 *   --source-ports F-L     (4000)
 *   --sources N            (1) source addresses, --source and those after it
 *   --source-macs N        (1) source hardware addresses, --first-mac (02:00:00:00:00:01) and those after it
 *   --rate N               (0) packets per second; 0 is as fast as it goes
 *   --seconds S, --count N (endless) what comes first ends it, and SIGTERM does
 *   --new                  ends it when each (MAC, port) was sent once
 *   --size BYTES           (60, or 70 for syn: the least) of the frame, without its checksum
 *   --core N               the core to stay on
 *
 * Packet n goes to port n % PORTS; with each walk through the ports come the next MAC, the next address and the next
 * source port. So (source port, port) is new for PORTS x SOURCE PORTS packets. The payload is the packet's number, then CLOCK_MONOTONIC
 * in ns at its sending, 8 bytes each in the machine's order. IP and UDP or TCP checksums are right. IPv4 alone.
 *
 * A packet's road through veth pairs runs in this process, on its core, until something queues it.
 * Prints {"sent": N, "seconds": S, "cpu_s": C}.
 */
#include "common.h"

#include <arpa/inet.h>
#include <getopt.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/ip.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#define BATCH 64
#define LARGEST 1514
#define SPIN_NS 80000 /* how long before a packet is due sleeping ends and looking at the clock begins */

struct payload {
    uint64_t sequence, sent_ns;
};

static struct {
    const char *interface;
    uint8_t mac[6], first_mac[6];
    struct in_addr source, destination;
    int syn, core;
    unsigned port, last_port, source_port, last_source_port, size;
    uint64_t macs, addresses, count;
    double rate, seconds;
} is = {.core = -1, .port = 9, .last_port = 9, .source_port = 4000, .last_source_port = 4000, .macs = 1, .addresses = 1,
        .count = UINT64_MAX, .seconds = 1e9, .first_mac = {2, 0, 0, 0, 0, 1}};

static uint8_t frames[BATCH][LARGEST + 2] __attribute__((aligned(64)));
static size_t header_length; /* of IP and what it carries */
static uint64_t base_sum;    /* of the pseudo header and the transport header without what changes */

static void parse_mac(const char *text, uint8_t *mac)
{
    char rest;
    if (sscanf(text, "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx%c", &mac[0], &mac[1], &mac[2], &mac[3], &mac[4], &mac[5], &rest) !=
        6)
        misused("not a MAC", text);
}

static void parse(int argc, char **argv)
{
    enum { SOURCE, DESTINATION, PROTOCOL, PORTS, SOURCE_PORTS, SOURCES, MACS, FIRST_MAC, RATE, SECONDS, COUNT, NEW, SIZE, CORE };
    static const struct option options[] = {
        {"source", 1, NULL, SOURCE},         {"destination", 1, NULL, DESTINATION}, {"protocol", 1, NULL, PROTOCOL},
        {"ports", 1, NULL, PORTS},           {"source-ports", 1, NULL, SOURCE_PORTS}, {"source-macs", 1, NULL, MACS},
        {"sources", 1, NULL, SOURCES},
        {"first-mac", 1, NULL, FIRST_MAC},   {"rate", 1, NULL, RATE},               {"seconds", 1, NULL, SECONDS},
        {"count", 1, NULL, COUNT},           {"new", 0, NULL, NEW},                 {"size", 1, NULL, SIZE},
        {"core", 1, NULL, CORE},             {NULL, 0, NULL, 0}};
    int option, only_new = 0;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (option) {
        case SOURCE:
            if (!inet_aton(optarg, &is.source)) misused("--source", optarg);
            break;
        case DESTINATION:
            if (!inet_aton(optarg, &is.destination)) misused("--destination", optarg);
            break;
        case PROTOCOL:
            is.syn = !strcmp(optarg, "syn");
            if (!is.syn && strcmp(optarg, "udp")) misused("--protocol", optarg);
            break;
        case PORTS: range("--ports", optarg, &is.port, &is.last_port); break;
        case SOURCE_PORTS: range("--source-ports", optarg, &is.source_port, &is.last_source_port); break;
        case SOURCES: is.addresses = (uint64_t)number("--sources", optarg, 1, 1u << 24); break;
        case MACS: is.macs = (uint64_t)number("--source-macs", optarg, 1, 1u << 24); break;
        case FIRST_MAC: parse_mac(optarg, is.first_mac); break;
        case RATE: is.rate = number("--rate", optarg, 0, 1e8); break;
        case SECONDS: is.seconds = number("--seconds", optarg, 0, 1e6); break;
        case COUNT: is.count = (uint64_t)number("--count", optarg, 0, 1e15); break;
        case NEW: only_new = 1; break;
        case SIZE: is.size = (unsigned)number("--size", optarg, 1, LARGEST); break;
        case CORE: is.core = (int)number("--core", optarg, 0, 4095); break;
        default: exit(2);
        }
    }
    if (argc - optind != 2 || !is.source.s_addr || !is.destination.s_addr)
        misused("usage", "traffic INTERFACE DESTINATION_MAC --source A.B.C.D --destination A.B.C.D [options]");
    is.interface = argv[optind];
    parse_mac(argv[optind + 1], is.mac);
    uint64_t pairs = is.macs * (is.last_port - is.port + 1);
    if (only_new && pairs < is.count)
        is.count = pairs;
    header_length = sizeof(struct iphdr) + (is.syn ? sizeof(struct tcphdr) : sizeof(struct udphdr));
    unsigned least = (unsigned)(ETH_HLEN + header_length + sizeof(struct payload));
    if (is.size < (least < 60 ? 60 : least))
        is.size = least < 60 ? 60 : least;
}

static uint64_t sum_of(const void *data, size_t length) /* length is even */
{
    uint64_t sum = 0;
    for (size_t n = 0; n < length; n += 2) {
        uint16_t word;
        memcpy(&word, (const uint8_t *)data + n, 2);
        sum += word;
    }
    return sum;
}

static uint16_t folded(uint64_t sum)
{
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)~sum;
}

static uint64_t words_of(uint64_t value)
{
    return (value & 0xffff) + (value >> 16 & 0xffff) + (value >> 32 & 0xffff) + (value >> 48);
}

static void prepare(uint8_t *frame)
{
    struct ether_header *ethernet = (void *)frame;
    struct iphdr *ip = (void *)(frame + ETH_HLEN);
    uint8_t *transport = frame + ETH_HLEN + sizeof *ip;
    uint16_t length = (uint16_t)(is.size - ETH_HLEN - sizeof *ip);
    memset(frame, 0, LARGEST);
    memcpy(ethernet->ether_dhost, is.mac, 6);
    memcpy(ethernet->ether_shost, is.first_mac, 6);
    ethernet->ether_type = htons(ETHERTYPE_IP);
    *ip = (struct iphdr){.version = 4, .ihl = 5, .tot_len = htons((uint16_t)(length + sizeof *ip)), .ttl = 64,
                         .frag_off = htons(IP_DF), .protocol = is.syn ? IPPROTO_TCP : IPPROTO_UDP,
                         .saddr = is.source.s_addr, .daddr = is.destination.s_addr};
    ip->check = folded(sum_of(ip, sizeof *ip));
    if (is.syn) {
        struct tcphdr *tcp = (void *)transport;
        tcp->doff = sizeof *tcp / 4;
        tcp->syn = 1;
        tcp->window = htons(64240);
    } else {
        ((struct udphdr *)(void *)transport)->len = htons(length);
    }
    base_sum = sum_of(&ip->saddr, 8) + htons(ip->protocol) + htons(length) +
               sum_of(transport, header_length - sizeof *ip);
}

static void write_mac(uint8_t *to, uint64_t n)
{
    uint64_t value = 0;
    for (int i = 0; i < 6; i++)
        value = value << 8 | is.first_mac[i];
    value += n;
    for (int i = 5; i >= 0; i--, value >>= 8)
        to[i] = (uint8_t)value;
}

/* Returns what the transport's checksum has too little: base_sum knows the first address. */
static uint64_t write_address(uint8_t *header, uint64_t n)
{
    struct iphdr *ip = (void *)header;
    ip->saddr = htonl((uint32_t)(ntohl(is.source.s_addr) + n));
    ip->check = 0;
    ip->check = folded(sum_of(ip, sizeof *ip));
    /* Minus the first address: plus its complement. */
    return words_of(ip->saddr) + words_of(~is.source.s_addr & 0xffffffffu);
}

static void fill(uint8_t *frame, uint64_t n)
{
    uint64_t ports = is.last_port - is.port + 1, walk = n / ports;
    uint16_t port = htons((uint16_t)(is.port + n % ports));
    uint16_t source_port = htons((uint16_t)(is.source_port + walk % (is.last_source_port - is.source_port + 1)));
    uint8_t *transport = frame + ETH_HLEN + sizeof(struct iphdr);
    struct payload payload = {n, now_ns(CLOCK_MONOTONIC)};
    uint64_t sum = base_sum + port + source_port + words_of(payload.sequence) + words_of(payload.sent_ns);
    if (is.macs > 1)
        write_mac(frame + 6, walk % is.macs);
    if (is.addresses > 1)
        sum += write_address(frame + ETH_HLEN, walk % is.addresses);
    memcpy(transport, &source_port, 2);
    memcpy(transport + 2, &port, 2);
    if (is.syn) {
        uint32_t sequence = (uint32_t)n;
        struct tcphdr *tcp = (void *)transport;
        tcp->seq = sequence;
        tcp->check = folded(sum + (sequence & 0xffff) + (sequence >> 16));
    } else {
        uint16_t check = folded(sum);
        ((struct udphdr *)(void *)transport)->check = check ? check : 0xffff;
    }
    memcpy(frame + ETH_HLEN + header_length, &payload, sizeof payload);
}

/* How many packets may go now, at most a batch; waits where none may. */
static unsigned due(uint64_t sent, uint64_t began)
{
    uint64_t left = is.count - sent, most = left < BATCH ? left : BATCH;
    if (!is.rate)
        return (unsigned)most;
    for (;;) {
        uint64_t now = now_ns(CLOCK_MONOTONIC), next = began + (uint64_t)((double)sent * 1e9 / is.rate);
        if (ended || now - began > (uint64_t)(is.seconds * 1e9))
            return 0;
        if (now >= next) {
            uint64_t late = (uint64_t)((double)(now - next) * is.rate / 1e9) + 1;
            return (unsigned)(late < most ? late : most);
        }
        if (next - now > SPIN_NS) {
            struct timespec until = {(time_t)((next - SPIN_NS) / 1000000000u), (long)((next - SPIN_NS) % 1000000000u)};
            clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
        }
    }
}

static int open_socket(void)
{
    int on = 1, descriptor = socket(AF_PACKET, SOCK_RAW, 0); /* protocol 0: it receives nothing */
    struct sockaddr_ll address = {.sll_family = AF_PACKET, .sll_ifindex = (int)if_nametoindex(is.interface)};
    if (descriptor < 0 || !address.sll_ifindex || bind(descriptor, (struct sockaddr *)&address, sizeof address))
        fail(is.interface);
    if (setsockopt(descriptor, SOL_PACKET, PACKET_QDISC_BYPASS, &on, sizeof on))
        fail("PACKET_QDISC_BYPASS");
    return descriptor;
}

int main(int argc, char **argv)
{
    static struct mmsghdr messages[BATCH];
    static struct iovec parts[BATCH];
    uint64_t sent = 0;
    parse(argc, argv);
    end_on_signal();
    pin_to(is.core);
    prctl(PR_SET_TIMERSLACK, 1);
    int descriptor = open_socket();
    for (int n = 0; n < BATCH; n++) {
        prepare(frames[n]);
        parts[n] = (struct iovec){frames[n], is.size};
        messages[n].msg_hdr = (struct msghdr){.msg_iov = &parts[n], .msg_iovlen = 1};
    }
    uint64_t began = now_ns(CLOCK_MONOTONIC), most_ns = (uint64_t)(is.seconds * 1e9);
    while (!ended && sent < is.count && now_ns(CLOCK_MONOTONIC) - began < most_ns) {
        unsigned wanted = due(sent, began);
        for (unsigned n = 0; n < wanted; n++)
            fill(frames[n], sent + n);
        if (!wanted)
            continue;
        int done = sendmmsg(descriptor, messages, wanted, 0);
        if (done > 0)
            sent += (unsigned)done;
        else if (errno != EINTR && errno != ENOBUFS && errno != EAGAIN)
            fail("sendmmsg");
    }
    printf("{\"sent\": %llu, \"seconds\": %.6f, \"cpu_s\": %.6f}\n", (unsigned long long)sent,
           (double)(now_ns(CLOCK_MONOTONIC) - began) / 1e9, cpu_s());
    return 0;
}
