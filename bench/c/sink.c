/* Takes what `traffic` has sent, and says what came and how late.
 *
 *   sink (--interface NAME | --udp FIRST-LAST) [--ports FIRST-LAST] [--count N] [--seconds S] [--core N]
 *
 *   --interface NAME   AF_PACKET: every IPv4 UDP or TCP packet that comes in there, whatever its address. Its time is the
 *                      kernel's: when it reached this interface, not when this process woke up. The way to measure what
 *                      is behind a firewall that forwards
 *   --udp FIRST-LAST   a UDP socket for each port; the time is when this process has read it, since the kernel's is from
 *                      before the firewall on the same host
 *   --ports FIRST-LAST counts no other destination ports
 *   --count N, --seconds S, SIGTERM: what comes first ends it
 *
 * Prints `ready` when it takes packets, and at the end
 *   {"received": N, "lost": N, "twice": N, "disordered": N, "overrun": N, "p50_us": …, "p90_us": …, "p99_us": …,
 *    "p999_us": …, "max_us": …, "mean_us": …}
 * lost: numbers up to the highest one that never came. overrun: what its own socket had no room for (AF_PACKET).
 */
#include "common.h"

#include <arpa/inet.h>
#include <getopt.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/ip.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/time.h>

#define BATCH 64
#define SIZE 128               /* bytes of each packet that are looked at */
#define BUFFER (64 << 20)      /* of the AF_PACKET socket */
#define MOST ((uint64_t)1 << 28) /* packets: beyond, numbers are not told apart and times not kept */

static uint64_t received, twice, disordered, highest, wanted = UINT64_MAX;
static int64_t offset_ns; /* of CLOCK_MONOTONIC to CLOCK_REALTIME, which the kernel's times are in */
static uint32_t *times;   /* in ns, 4 s at most */
static uint64_t times_room, kept;
static uint8_t *seen; /* a bit for each number */
static uint64_t seen_room;
static unsigned first_port = 0, last_port = 65535;

static void *grown(void *memory, uint64_t *room, uint64_t needed, size_t each)
{
    uint64_t more = *room ? *room : 1 << 16;
    while (more <= needed)
        more *= 2;
    memory = realloc(memory, more * each);
    if (!memory)
        fail("realloc");
    memset((uint8_t *)memory + *room * each, 0, (more - *room) * each);
    *room = more;
    return memory;
}

static void note(const uint8_t *payload, uint64_t at_ns)
{
    uint64_t sequence, sent_ns;
    memcpy(&sequence, payload, 8);
    memcpy(&sent_ns, payload + 8, 8);
    if (sequence >= MOST)
        return;
    received++;
    if (sequence / 8 >= seen_room)
        seen = grown(seen, &seen_room, sequence / 8, 1);
    if (seen[sequence / 8] & 1 << sequence % 8) {
        twice++;
        return;
    }
    seen[sequence / 8] |= (uint8_t)(1 << sequence % 8);
    if (sequence < highest)
        disordered++;
    else
        highest = sequence;
    if (kept >= times_room)
        times = grown(times, &times_room, kept, sizeof *times);
    uint64_t late = at_ns > sent_ns ? at_ns - sent_ns : 0;
    times[kept++] = late > UINT32_MAX ? UINT32_MAX : (uint32_t)late;
}

/* The clocks drift apart while NTP is at work, so this is asked for anew with every read. */
static void compare_clocks(void)
{
    uint64_t before = now_ns(CLOCK_MONOTONIC), real = now_ns(CLOCK_REALTIME), after = now_ns(CLOCK_MONOTONIC);
    offset_ns = (int64_t)(before + (after - before) / 2 - real);
}

static void look(const uint8_t *frame, size_t length, uint64_t at_ns)
{
    const struct iphdr *ip = (const void *)(frame + ETH_HLEN);
    if (length < ETH_HLEN + sizeof *ip || (ip->protocol != IPPROTO_UDP && ip->protocol != IPPROTO_TCP))
        return;
    size_t transport = ETH_HLEN + ip->ihl * 4u, payload = transport + 8;
    if (transport + 14 > length)
        return;
    unsigned port = (unsigned)(frame[transport + 2] << 8 | frame[transport + 3]);
    if (ip->protocol == IPPROTO_TCP)
        payload = transport + (frame[transport + 12] >> 4) * 4u;
    if (payload + 16 <= length && port >= first_port && port <= last_port)
        note(frame + payload, at_ns);
}

static struct mmsghdr messages[BATCH];
static struct iovec parts[BATCH];
static uint8_t frames[BATCH][SIZE], controls[BATCH][CMSG_SPACE(sizeof(struct timespec))];

static int open_interface(const char *name)
{
    int on = 1, size = BUFFER, descriptor = socket(AF_PACKET, SOCK_RAW, htons(ETH_P_IP));
    struct sockaddr_ll address = {
        .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_IP), .sll_ifindex = (int)if_nametoindex(name)};
    if (descriptor < 0 || !address.sll_ifindex || bind(descriptor, (struct sockaddr *)&address, sizeof address))
        fail(name);
    if (setsockopt(descriptor, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size) ||
        setsockopt(descriptor, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof on))
        fail("setsockopt");
    return descriptor;
}

static uint64_t kernel_time(struct msghdr *message)
{
    struct timespec time;
    for (struct cmsghdr *part = CMSG_FIRSTHDR(message); part; part = CMSG_NXTHDR(message, part))
        if (part->cmsg_level == SOL_SOCKET && part->cmsg_type == SO_TIMESTAMPNS) {
            memcpy(&time, CMSG_DATA(part), sizeof time);
            return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec + (uint64_t)offset_ns;
        }
    return now_ns(CLOCK_MONOTONIC);
}

static int open_ports(unsigned first, unsigned last)
{
    struct rlimit limit = {1 << 17, 1 << 17};
    int poll = epoll_create1(0), size = 1 << 22;
    setrlimit(RLIMIT_NOFILE, &limit);
    for (unsigned port = first; port <= last; port++) {
        int descriptor = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
        struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
        struct epoll_event event = {.events = EPOLLIN, .data.fd = descriptor};
        if (descriptor < 0 || bind(descriptor, (struct sockaddr *)&address, sizeof address) ||
            epoll_ctl(poll, EPOLL_CTL_ADD, descriptor, &event))
            fail("a UDP port");
        setsockopt(descriptor, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size);
    }
    return poll;
}

/* How many came; 0 after 0.1 s without any. */
static int read_interface(int descriptor)
{
    for (int n = 0; n < BATCH; n++) {
        parts[n] = (struct iovec){frames[n], SIZE};
        messages[n].msg_hdr = (struct msghdr){.msg_iov = &parts[n], .msg_iovlen = 1, .msg_control = controls[n],
                                              .msg_controllen = sizeof controls[n]};
    }
    struct timespec most = {0, 100000000};
    struct pollfd waiting = {.fd = descriptor, .events = POLLIN};
    if (ppoll(&waiting, 1, &most, NULL) <= 0)
        return 0;
    int count = recvmmsg(descriptor, messages, BATCH, MSG_DONTWAIT, NULL);
    compare_clocks();
    for (int n = 0; n < count; n++)
        look(frames[n], messages[n].msg_len, kernel_time(&messages[n].msg_hdr));
    return count > 0 ? count : 0;
}

static int read_ports(int poll)
{
    struct epoll_event events[BATCH];
    int count = epoll_wait(poll, events, BATCH, 100);
    for (int n = 0; n < count; n++) {
        ssize_t length;
        while ((length = recv(events[n].data.fd, frames[0], SIZE, 0)) >= 0)
            if (length >= 16)
                note(frames[0], now_ns(CLOCK_MONOTONIC));
    }
    return count > 0 ? count : 0;
}

static int ascending(const void *one, const void *other)
{
    uint32_t a = *(const uint32_t *)one, b = *(const uint32_t *)other;
    return (a > b) - (a < b);
}

static double percentile(double part)
{
    return kept ? times[(uint64_t)((double)(kept - 1) * part)] / 1e3 : 0;
}

static void report(unsigned overrun)
{
    double sum = 0;
    qsort(times, kept, sizeof *times, ascending);
    for (uint64_t n = 0; n < kept; n++)
        sum += times[n];
    uint64_t numbers = received ? highest + 1 : 0;
    printf("{\"received\": %llu, \"lost\": %llu, \"twice\": %llu, \"disordered\": %llu, \"overrun\": %u, "
           "\"p50_us\": %.1f, \"p90_us\": %.1f, \"p99_us\": %.1f, \"p999_us\": %.1f, \"max_us\": %.1f, "
           "\"mean_us\": %.2f}\n",
           (unsigned long long)received, (unsigned long long)(numbers - kept), (unsigned long long)twice,
           (unsigned long long)disordered, overrun, percentile(0.5), percentile(0.9), percentile(0.99),
           percentile(0.999), percentile(1), kept ? sum / (double)kept / 1e3 : 0);
}

int main(int argc, char **argv)
{
    enum { INTERFACE, UDP, PORTS, COUNT, SECONDS, CORE };
    static const struct option options[] = {{"interface", 1, NULL, INTERFACE}, {"udp", 1, NULL, UDP},
                                            {"ports", 1, NULL, PORTS},         {"count", 1, NULL, COUNT},
                                            {"seconds", 1, NULL, SECONDS},     {"core", 1, NULL, CORE},
                                            {NULL, 0, NULL, 0}};
    const char *interface = NULL;
    unsigned first = 1, last = 0;
    int option, core = -1;
    double seconds = 1e9;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (option) {
        case INTERFACE: interface = optarg; break;
        case UDP: range("--udp", optarg, &first, &last); break;
        case PORTS: range("--ports", optarg, &first_port, &last_port); break;
        case COUNT: wanted = (uint64_t)number("--count", optarg, 0, 1e15); break;
        case SECONDS: seconds = number("--seconds", optarg, 0, 1e6); break;
        case CORE: core = (int)number("--core", optarg, 0, 4095); break;
        default: exit(2);
        }
    }
    if (optind != argc || !interface == (first > last))
        misused("usage", "sink (--interface NAME | --udp FIRST-LAST) [options]");
    end_on_signal();
    pin_to(core);
    int descriptor = interface ? open_interface(interface) : open_ports(first, last);
    say_ready();
    uint64_t ends = now_ns(CLOCK_MONOTONIC) + (uint64_t)(seconds * 1e9);
    int (*read_some)(int) = interface ? read_interface : read_ports;
    while (!ended && received < wanted && now_ns(CLOCK_MONOTONIC) < ends)
        read_some(descriptor);
    ends = now_ns(CLOCK_MONOTONIC) + 1000000000u;
    while (received < wanted && now_ns(CLOCK_MONOTONIC) < ends && read_some(descriptor))
        ; /* what has come already */
    struct tpacket_stats stats = {0, 0};
    socklen_t length = sizeof stats;
    if (interface)
        getsockopt(descriptor, SOL_PACKET, PACKET_STATISTICS, &stats, &length);
    report(stats.tp_drops);
    return 0;
}
