/* The floor of the log path: what it costs to be told of a dropped packet, and to look at nothing but its number.
 *
 *   logfloor GROUP [--batch N] [--timeout MS] [--buffer BYTES] [--core N]
 *
 * Netlink only, no library. The kernel collects --batch (64) packets before it sends, and no longer than --timeout (10)
 * ms; 128 bytes of each, room for 32 KiB in one piece, --buffer (4 MiB) for the socket: Glacic's settings under load.
 *
 * Prints `ready` when bound, and at SIGTERM {"received": N, "lost": N, "overruns": N, "reads": N, "cpu_s": S}. lost:
 * numbers that never came. overruns: how often the kernel said that it had to throw some away.
 */
#include "common.h"

#include <arpa/inet.h>
#include <getopt.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_log.h>
#include <linux/netlink.h>
#include <sys/socket.h>
#include <sys/time.h>

#define COPY_RANGE 128
#define KERNEL_BUFFER 32768
#define READ (1 << 17)

static int netlink;
static uint64_t received, lost, overruns, reads;
static uint32_t expected;
static int begun;

struct request {
    struct nlmsghdr header;
    struct nfgenmsg generic;
    uint8_t attributes[96];
} __attribute__((aligned(4)));

static void put(struct request *request, uint16_t type, const void *data, uint16_t length)
{
    struct nlattr *attribute = (void *)((uint8_t *)request + request->header.nlmsg_len);
    attribute->nla_type = type;
    attribute->nla_len = (uint16_t)(NLA_HDRLEN + length);
    memcpy((uint8_t *)attribute + NLA_HDRLEN, data, length);
    request->header.nlmsg_len += (uint32_t)NLA_ALIGN(attribute->nla_len);
}

static void count(const struct nlmsghdr *message)
{
    const uint8_t *at = (const uint8_t *)message + NLMSG_LENGTH(sizeof(struct nfgenmsg));
    const uint8_t *end = (const uint8_t *)message + message->nlmsg_len;
    received++;
    while (at + NLA_HDRLEN <= end) {
        const struct nlattr *attribute = (const void *)at;
        if (attribute->nla_len < NLA_HDRLEN)
            return;
        if (attribute->nla_type == NFULA_SEQ) {
            uint32_t number;
            memcpy(&number, at + NLA_HDRLEN, sizeof number);
            number = ntohl(number);
            lost += begun ? (uint32_t)(number - expected) : 0;
            expected = number + 1;
            begun = 1;
            return;
        }
        at += NLA_ALIGN(attribute->nla_len);
    }
}

/* Counts packets; 1 at the kernel's answer to a request. */
static int look(const uint8_t *data, ssize_t length)
{
    int answered = 0;
    for (const struct nlmsghdr *message = (const void *)data; NLMSG_OK(message, length);
         message = NLMSG_NEXT(message, length)) {
        if (message->nlmsg_type == (NFNL_SUBSYS_ULOG << 8 | NFULNL_MSG_PACKET))
            count(message);
        if (message->nlmsg_type == NLMSG_ERROR) {
            errno = -((const struct nlmsgerr *)NLMSG_DATA(message))->error;
            if (errno)
                fail("bind");
            answered = 1;
        }
    }
    return answered;
}

static int read_some(uint8_t *data)
{
    ssize_t length = recv(netlink, data, READ, 0);
    if (length > 0) {
        reads++;
        return look(data, length);
    }
    if (length < 0 && errno == ENOBUFS)
        overruns++;
    else if (length < 0 && errno != EAGAIN && errno != EINTR)
        fail("recv");
    return 0;
}

static void bind_group(uint16_t group, uint32_t batch, double timeout_ms, int size, uint8_t *data)
{
    struct sockaddr_nl address = {.nl_family = AF_NETLINK};
    struct timeval most = {0, 200000};
    netlink = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER);
    if (netlink < 0 || bind(netlink, (struct sockaddr *)&address, sizeof address) ||
        connect(netlink, (struct sockaddr *)&address, sizeof address))
        fail("netlink");
    if (setsockopt(netlink, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size) ||
        setsockopt(netlink, SOL_SOCKET, SO_RCVTIMEO, &most, sizeof most))
        fail("setsockopt");

    struct nfulnl_msg_config_cmd command = {.command = NFULNL_CFG_CMD_BIND};
    struct nfulnl_msg_config_mode mode = {.copy_range = htonl(COPY_RANGE), .copy_mode = NFULNL_COPY_PACKET};
    uint32_t threshold = htonl(batch), timeout = htonl((uint32_t)(timeout_ms / 10)), room = htonl(KERNEL_BUFFER);
    uint16_t flags = htons(NFULNL_CFG_F_SEQ);
    struct request request = {.header = {.nlmsg_len = NLMSG_LENGTH(sizeof request.generic),
                                         .nlmsg_type = NFNL_SUBSYS_ULOG << 8 | NFULNL_MSG_CONFIG,
                                         .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK},
                              .generic = {.nfgen_family = AF_UNSPEC, .res_id = htons(group)}};
    put(&request, NFULA_CFG_CMD, &command, sizeof command);
    put(&request, NFULA_CFG_MODE, &mode, sizeof mode);
    put(&request, NFULA_CFG_TIMEOUT, &timeout, sizeof timeout);
    put(&request, NFULA_CFG_QTHRESH, &threshold, sizeof threshold);
    put(&request, NFULA_CFG_NLBUFSIZ, &room, sizeof room);
    put(&request, NFULA_CFG_FLAGS, &flags, sizeof flags);
    if (send(netlink, &request, request.header.nlmsg_len, 0) < 0)
        fail("send");
    while (!read_some(data) && !ended)
        ;
}

int main(int argc, char **argv)
{
    enum { BATCH, TIMEOUT, BUFFER, CORE };
    static const struct option options[] = {{"batch", 1, NULL, BATCH},
                                            {"timeout", 1, NULL, TIMEOUT},
                                            {"buffer", 1, NULL, BUFFER},
                                            {"core", 1, NULL, CORE},
                                            {NULL, 0, NULL, 0}};
    static uint8_t data[READ] __attribute__((aligned(8)));
    int option, core = -1, size = 4 << 20;
    double batch = 64, timeout_ms = 10;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (option) {
        case BATCH: batch = number("--batch", optarg, 1, 1e6); break;
        case TIMEOUT: timeout_ms = number("--timeout", optarg, 0, 1e6); break;
        case BUFFER: size = (int)number("--buffer", optarg, 4096, 1 << 30); break;
        case CORE: core = (int)number("--core", optarg, 0, 4095); break;
        default: exit(2);
        }
    }
    if (argc - optind != 1)
        misused("usage", "logfloor GROUP [options]");
    end_on_signal();
    pin_to(core);
    bind_group((uint16_t)number("GROUP", argv[optind], 0, 65535), (uint32_t)batch, timeout_ms, size, data);
    say_ready();
    while (!ended)
        read_some(data);
    printf("{\"received\": %llu, \"lost\": %llu, \"overruns\": %llu, \"reads\": %llu, \"cpu_s\": %.6f}\n",
           (unsigned long long)received, (unsigned long long)lost, (unsigned long long)overruns,
           (unsigned long long)reads, cpu_s());
    return 0;
}
