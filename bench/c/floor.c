/* The floor: what it costs to hold a packet in a queue, look at nothing, and let it go. Netlink only, no library.
 *
 *   floor QUEUE [--batch] [--mark VALUE] [--maxlen N] [--buffer BYTES] [--core N]
 *
 * Per packet: recv, send of one verdict, recv, ... With --batch: recvmmsg of what is there, 64 packets at most, and one
 * verdict for all of them (NFQNL_MSG_VERDICT_BATCH). --mark: each verdict carries this mark, as a Glacic's does.
 * The queue's settings are Glacic's: 128 bytes of each packet, no segmentation, room for 1024 (--maxlen), 4 MiB of
 * socket buffer (--buffer BYTES), no ENOBUFS.
 *
 * Prints `ready` when bound, and at SIGTERM {"verdicts": N, "reads": N, "cpu_s": S}.
 */
#include "common.h"

#include <arpa/inet.h>
#include <getopt.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_queue.h>
#include <linux/netlink.h>
#include <sys/socket.h>
#include <sys/time.h>

#ifndef SOL_NETLINK
#define SOL_NETLINK 270
#endif

#define BATCH 64
#define COPY_RANGE 128
#define RECEIVE_BUFFER (4 << 20)
#define ROOM 1024 /* bytes for one message: the headers, some 15 attributes, and the packet's first 128 */

static int netlink;
static uint16_t queue;
static uint64_t verdicts, reads;

/* ---- one request, made in place */

struct request {
    struct nlmsghdr header;
    struct nfgenmsg generic;
    uint8_t attributes[64];
} __attribute__((aligned(4)));

static void begin(struct request *request, uint16_t type, uint16_t flags)
{
    memset(request, 0, sizeof *request);
    request->header = (struct nlmsghdr){.nlmsg_len = NLMSG_LENGTH(sizeof request->generic),
                                        .nlmsg_type = (uint16_t)(NFNL_SUBSYS_QUEUE << 8 | type),
                                        .nlmsg_flags = (uint16_t)(NLM_F_REQUEST | flags)};
    request->generic = (struct nfgenmsg){.nfgen_family = AF_UNSPEC, .res_id = htons(queue)};
}

static void *put(struct request *request, uint16_t type, const void *data, uint16_t length)
{
    struct nlattr *attribute = (void *)((uint8_t *)request + request->header.nlmsg_len);
    attribute->nla_type = type;
    attribute->nla_len = (uint16_t)(NLA_HDRLEN + length);
    memcpy((uint8_t *)attribute + NLA_HDRLEN, data, length);
    request->header.nlmsg_len += (uint32_t)NLA_ALIGN(attribute->nla_len);
    return (uint8_t *)attribute + NLA_HDRLEN;
}

/* The packet's number, in network byte order: the kernel puts it first (nfqnl_build_packet_message). 0: no packet. */
static uint32_t packet_id(const uint8_t *data, size_t length)
{
    const struct nlmsghdr *header = (const void *)data;
    const struct nlattr *first = (const void *)(data + NLMSG_LENGTH(sizeof(struct nfgenmsg)));
    const struct nfqnl_msg_packet_hdr *packet = (const void *)((const uint8_t *)first + NLA_HDRLEN);
    if (length < NLMSG_LENGTH(sizeof(struct nfgenmsg)) + NLA_HDRLEN + sizeof *packet ||
        header->nlmsg_type != (NFNL_SUBSYS_QUEUE << 8 | NFQNL_MSG_PACKET) || first->nla_type != NFQA_PACKET_HDR)
        return 0;
    return packet->packet_id;
}

static struct nfqnl_msg_verdict_hdr *make_verdict(struct request *request, uint16_t type, int marks, uint32_t mark)
{
    struct nfqnl_msg_verdict_hdr accept = {.verdict = htonl(NF_ACCEPT)};
    uint32_t value = htonl(mark);
    begin(request, type, 0);
    struct nfqnl_msg_verdict_hdr *given = put(request, NFQA_VERDICT_HDR, &accept, sizeof accept);
    if (marks)
        put(request, NFQA_MARK, &value, sizeof value);
    return given;
}

static int is_over(ssize_t error)
{
    if (error < 0 && errno != EAGAIN && errno != EINTR)
        fail("recv");
    return ended;
}

static void give(const struct request *request)
{
    if (send(netlink, request, request->header.nlmsg_len, 0) < 0)
        fail("send");
}

/* ---- the queue */

/* Reads up to the kernel's answer; packets may come before it. */
static void wait_bound(void)
{
    uint8_t data[ROOM] __attribute__((aligned(8)));
    const struct nlmsghdr *header = (void *)data;
    struct request request;
    struct nfqnl_msg_verdict_hdr *verdict = make_verdict(&request, NFQNL_MSG_VERDICT, 0, 0);
    for (;;) {
        ssize_t length = recv(netlink, data, sizeof data, 0);
        if (length < (ssize_t)NLMSG_LENGTH(sizeof(struct nlmsgerr)))
            fail("bind");
        if (header->nlmsg_type == NLMSG_ERROR) {
            errno = -((const struct nlmsgerr *)NLMSG_DATA(header))->error;
            if (errno)
                fail("bind");
            return;
        }
        if ((verdict->id = packet_id(data, (size_t)length)))
            give(&request);
    }
}

static void bind_queue(uint32_t maxlen, int size)
{
    struct sockaddr_nl address = {.nl_family = AF_NETLINK};
    struct timeval most = {0, 200000};
    int on = 1;
    netlink = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER);
    if (netlink < 0 || bind(netlink, (struct sockaddr *)&address, sizeof address) ||
        connect(netlink, (struct sockaddr *)&address, sizeof address))
        fail("netlink");
    if (setsockopt(netlink, SOL_NETLINK, NETLINK_NO_ENOBUFS, &on, sizeof on) ||
        setsockopt(netlink, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size) ||
        setsockopt(netlink, SOL_SOCKET, SO_RCVTIMEO, &most, sizeof most))
        fail("setsockopt");

    struct nfqnl_msg_config_cmd command = {.command = NFQNL_CFG_CMD_BIND};
    struct nfqnl_msg_config_params params = {.copy_range = htonl(COPY_RANGE), .copy_mode = NFQNL_COPY_PACKET};
    uint32_t length = htonl(maxlen), gso = htonl(NFQA_CFG_F_GSO);
    struct request request;
    begin(&request, NFQNL_MSG_CONFIG, NLM_F_ACK);
    put(&request, NFQA_CFG_CMD, &command, sizeof command);
    put(&request, NFQA_CFG_QUEUE_MAXLEN, &length, sizeof length); /* before packets come */
    put(&request, NFQA_CFG_FLAGS, &gso, sizeof gso);
    put(&request, NFQA_CFG_MASK, &gso, sizeof gso);
    put(&request, NFQA_CFG_PARAMS, &params, sizeof params);
    if (send(netlink, &request, request.header.nlmsg_len, 0) < 0)
        fail("send");
    wait_bound();
}

/* ---- the two ways of answering */

static void answer_each(int marks, uint32_t mark)
{
    uint8_t data[ROOM] __attribute__((aligned(8)));
    struct request request;
    struct nfqnl_msg_verdict_hdr *verdict = make_verdict(&request, NFQNL_MSG_VERDICT, marks, mark);
    for (;;) {
        ssize_t length = recv(netlink, data, sizeof data, 0);
        if (length < 0 || ended) {
            if (is_over(length))
                return;
            continue;
        }
        reads++;
        if (!(verdict->id = packet_id(data, (size_t)length)))
            continue;
        give(&request);
        verdicts++;
    }
}

static void answer_batches(int marks, uint32_t mark)
{
    static uint8_t data[BATCH][ROOM] __attribute__((aligned(64)));
    static struct iovec parts[BATCH];
    static struct mmsghdr messages[BATCH];
    struct request request;
    struct nfqnl_msg_verdict_hdr *verdict = make_verdict(&request, NFQNL_MSG_VERDICT_BATCH, marks, mark);
    for (int n = 0; n < BATCH; n++) {
        parts[n] = (struct iovec){data[n], ROOM};
        messages[n].msg_hdr = (struct msghdr){.msg_iov = &parts[n], .msg_iovlen = 1};
    }
    for (;;) {
        int count = recvmmsg(netlink, messages, BATCH, MSG_WAITFORONE, NULL);
        if (count < 0 || ended) {
            if (is_over(count))
                return;
            continue;
        }
        reads++;
        uint32_t highest = 0;
        unsigned packets = 0;
        for (int n = 0; n < count; n++) {
            uint32_t id = packet_id(data[n], messages[n].msg_len);
            if (id) {
                highest = id; /* numbers grow: one sender's lock numbers and sends (__nfqnl_enqueue_packet) */
                packets++;
            }
        }
        if (!packets)
            continue;
        verdict->id = highest;
        give(&request);
        verdicts += packets;
    }
}

int main(int argc, char **argv)
{
    enum { BATCHED, MARK, MAXLEN, BUFFER, CORE };
    static const struct option options[] = {
        {"batch", 0, NULL, BATCHED}, {"mark", 1, NULL, MARK}, {"maxlen", 1, NULL, MAXLEN},
        {"buffer", 1, NULL, BUFFER}, {"core", 1, NULL, CORE},         {NULL, 0, NULL, 0}};
    int option, batched = 0, marks = 0, core = -1, size = RECEIVE_BUFFER;
    uint32_t mark = 0, maxlen = 1024;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (option) {
        case BATCHED: batched = 1; break;
        case MARK:
            marks = 1;
            mark = (uint32_t)number("--mark", optarg, 0, UINT32_MAX);
            break;
        case MAXLEN: maxlen = (uint32_t)number("--maxlen", optarg, 1, 1e6); break;
        case BUFFER: size = (int)number("--buffer", optarg, 1 << 16, 1 << 30); break;
        case CORE: core = (int)number("--core", optarg, 0, 4095); break;
        default: exit(2);
        }
    }
    if (argc - optind != 1)
        misused("usage", "floor QUEUE [--batch] [--mark VALUE] [--maxlen N] [--buffer BYTES] [--core N]");
    queue = (uint16_t)number("QUEUE", argv[optind], 0, 65535);
    end_on_signal();
    pin_to(core);
    bind_queue(maxlen, size);
    say_ready();
    if (batched)
        answer_batches(marks, mark);
    else
        answer_each(marks, mark);
    printf("{\"verdicts\": %llu, \"reads\": %llu, \"cpu_s\": %.6f}\n", (unsigned long long)verdicts,
           (unsigned long long)reads, cpu_s());
    return 0;
}
