/* Opens TCP connections and closes them at once, one after the other or several at a time; and takes them.
 *
 *   connect --listen PORT                  takes connections on this port until SIGTERM; prints `ready`
 *     --answer                             keeps them, and sends back what comes
 *   connect A.B.C.D PORT [options]         opens them
 *     --count N, --seconds S, SIGTERM      what comes first ends it
 *     --parallel N                         (1) how many are under way at a time
 *     --rate N                             (0) new ones per second; 0 is as fast as it goes
 *     --patience S                         (3) what has not been answered by then has failed
 *     --ask                                each sends eight bytes and has to get as many back
 *     --core N                             the core to stay on
 *
 * The time of a connection is from before connect() to its being writable (with --ask: to its answer): one round trip (two),
 * and whatever holds the first packet. retransmits: segments that were sent again, over all connections: what was lost on the
 * way, as the kernel counts it. It ends with a reset (SO_LINGER 0), so that no port waits. Each comes from the next source port, so that
 * connection tracking has forgotten the one before it of the same port by then, or nearly so.
 * Prints {"connections": N, "failed": N, "retransmits": N, "seconds": S, "cpu_s": C, "p50_us": ..., "p90_us": ..., "p99_us": ...,
 *         "max_us": ..., "mean_us": ...}; with --listen {"taken": N}.
 */
#include "common.h"

#include <arpa/inet.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/prctl.h>
#include <unistd.h>

#define MOST_PARALLEL 256
#define MOST_TIMES (1 << 24)
#define FIRST_PORT 2000
#define PORTS 60000

static struct {
    struct sockaddr_in to;
    uint64_t count;
    double seconds, rate, patience;
    unsigned parallel;
    int core, ask, answer;
} is = {.count = UINT64_MAX, .seconds = 1e9, .patience = 3, .parallel = 1, .core = -1};

static struct {
    int descriptor; /* -1: free */
    int asked;
    uint64_t began_ns;
} under_way[MOST_PARALLEL];

static float *times_us;
static uint64_t connected, failed, kept, retransmits;

/* One loop for all connections; those that are open in the end are closed with the process. */
static int answer_all(int listener)
{
    struct epoll_event events[MOST_PARALLEL], event = {.events = EPOLLIN, .data.fd = listener};
    uint64_t taken = 0;
    int poll = epoll_create1(0);
    if (poll < 0 || epoll_ctl(poll, EPOLL_CTL_ADD, listener, &event))
        fail("epoll");
    while (!ended) {
        int count = epoll_wait(poll, events, MOST_PARALLEL, 100);
        for (int n = 0; n < count; n++) {
            char bytes[64];
            int one = events[n].data.fd;
            if (one == listener) {
                event.data.fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
                if (event.data.fd >= 0 && !epoll_ctl(poll, EPOLL_CTL_ADD, event.data.fd, &event))
                    taken++;
                continue;
            }
            ssize_t length = recv(one, bytes, sizeof bytes, 0);
            if (length <= 0 || send(one, bytes, (size_t)length, MSG_NOSIGNAL) != length)
                close(one);
        }
    }
    printf("{\"taken\": %llu}\n", (unsigned long long)taken);
    return 0;
}

static int listen_on(uint16_t port)
{
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons(port)};
    int on = 1, descriptor = socket(AF_INET, SOCK_STREAM, 0);
    uint64_t taken = 0;
    setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(descriptor, (struct sockaddr *)&here, sizeof here) || listen(descriptor, 4096))
        fail("listen");
    say_ready();
    if (is.answer)
        return answer_all(descriptor);
    while (!ended) {
        int one = accept(descriptor, NULL, NULL);
        if (one < 0)
            continue; /* interrupted, or gone again before it was taken */
        taken++;
        close(one);
    }
    printf("{\"taken\": %llu}\n", (unsigned long long)taken);
    return 0;
}

static void over(unsigned slot, int well)
{
    struct linger reset = {1, 0};
    struct tcp_info info = {0};
    socklen_t length = sizeof info;
    if (!getsockopt(under_way[slot].descriptor, IPPROTO_TCP, TCP_INFO, &info, &length))
        retransmits += info.tcpi_total_retrans;
    if (well) {
        if (kept < MOST_TIMES)
            times_us[kept++] = (float)((double)(now_ns(CLOCK_MONOTONIC) - under_way[slot].began_ns) / 1e3);
        connected++;
    } else {
        failed++;
    }
    setsockopt(under_way[slot].descriptor, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    close(under_way[slot].descriptor);
    under_way[slot].descriptor = -1;
}

static void begin(unsigned slot, int poll)
{
    static uint64_t next_port;
    struct epoll_event event = {.events = EPOLLOUT, .data.u32 = slot};
    struct sockaddr_in here = {.sin_family = AF_INET};
    int tries = 0, on = 1, one = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (one < 0)
        fail("socket");
    if (!next_port)
        next_port = now_ns(CLOCK_MONOTONIC) / 1000; /* not where the last one began */
    setsockopt(one, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    do
        here.sin_port = htons((uint16_t)(FIRST_PORT + next_port++ % PORTS));
    while (bind(one, (struct sockaddr *)&here, sizeof here) && ++tries < 100);
    under_way[slot].descriptor = one;
    under_way[slot].asked = 0;
    under_way[slot].began_ns = now_ns(CLOCK_MONOTONIC);
    if (connect(one, (struct sockaddr *)&is.to, sizeof is.to) && errno != EINPROGRESS) {
        over(slot, 0);
    } else if (epoll_ctl(poll, EPOLL_CTL_ADD, one, &event)) {
        fail("epoll_ctl");
    }
}

static void finish(unsigned slot, int poll)
{
    int error = 0, one = under_way[slot].descriptor;
    socklen_t length = sizeof error;
    char bytes[8] = "glacic!";
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = slot};
    if (!under_way[slot].asked) {
        getsockopt(one, SOL_SOCKET, SO_ERROR, &error, &length);
        if (error || !is.ask) {
            over(slot, !error);
        } else if (send(one, bytes, sizeof bytes, MSG_NOSIGNAL) != sizeof bytes ||
                   epoll_ctl(poll, EPOLL_CTL_MOD, one, &event)) {
            over(slot, 0);
        } else {
            under_way[slot].asked = 1;
        }
        return;
    }
    over(slot, recv(one, bytes, sizeof bytes, 0) == sizeof bytes);
}

static void give_up(void)
{
    uint64_t now = now_ns(CLOCK_MONOTONIC), patience_ns = (uint64_t)(is.patience * 1e9);
    for (unsigned slot = 0; slot < is.parallel; slot++)
        if (under_way[slot].descriptor >= 0 && now - under_way[slot].began_ns > patience_ns)
            over(slot, 0);
}

static int ascending(const void *one, const void *other)
{
    float a = *(const float *)one, b = *(const float *)other;
    return (a > b) - (a < b);
}

static double percentile(double part)
{
    return kept ? (double)times_us[(uint64_t)((double)(kept - 1) * part)] : 0;
}

static void open_all(void)
{
    struct epoll_event events[MOST_PARALLEL];
    uint64_t begun = 0, began = now_ns(CLOCK_MONOTONIC), most_ns = (uint64_t)(is.seconds * 1e9);
    int poll = epoll_create1(0);
    for (;;) {
        uint64_t now = now_ns(CLOCK_MONOTONIC), due = UINT64_MAX;
        unsigned busy = 0;
        int over_time = ended || now - began > most_ns;
        if (is.rate)
            due = (uint64_t)((double)(now - began) * is.rate / 1e9) + 1;
        for (unsigned slot = 0; slot < is.parallel; slot++) {
            if (under_way[slot].descriptor < 0 && !over_time && begun < is.count && begun < due) {
                begin(slot, poll);
                begun++;
            }
            busy += under_way[slot].descriptor >= 0;
        }
        if (!busy && (over_time || begun >= is.count))
            break;
        if (!busy && is.rate) {
            struct timespec short_while = {0, 20000};
            nanosleep(&short_while, NULL);
            continue;
        }
        int count = epoll_wait(poll, events, MOST_PARALLEL, is.rate && busy < is.parallel ? 1 : 100);
        for (int n = 0; n < count; n++)
            finish(events[n].data.u32, poll);
        give_up();
    }
    double seconds = (double)(now_ns(CLOCK_MONOTONIC) - began) / 1e9, sum = 0;
    qsort(times_us, kept, sizeof *times_us, ascending);
    for (uint64_t n = 0; n < kept; n++)
        sum += (double)times_us[n];
    printf("{\"connections\": %llu, \"failed\": %llu, \"retransmits\": %llu, \"seconds\": %.6f, \"cpu_s\": %.6f, \"p50_us\": %.1f, "
           "\"p90_us\": %.1f, \"p99_us\": %.1f, \"max_us\": %.1f, \"mean_us\": %.2f}\n",
           (unsigned long long)connected, (unsigned long long)failed, (unsigned long long)retransmits, seconds, cpu_s(), percentile(0.5),
           percentile(0.9), percentile(0.99), percentile(1), kept ? sum / (double)kept : 0);
}

int main(int argc, char **argv)
{
    enum { LISTEN, COUNT, SECONDS, PARALLEL, RATE, PATIENCE, CORE, ASK, ANSWER };
    static const struct option options[] = {{"listen", 1, NULL, LISTEN},     {"count", 1, NULL, COUNT},
                                            {"seconds", 1, NULL, SECONDS},   {"parallel", 1, NULL, PARALLEL},
                                            {"rate", 1, NULL, RATE},         {"patience", 1, NULL, PATIENCE},
                                            {"core", 1, NULL, CORE},         {"ask", 0, NULL, ASK},
                                            {"answer", 0, NULL, ANSWER},     {NULL, 0, NULL, 0}};
    int option;
    unsigned port = 0;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (option) {
        case LISTEN: port = (unsigned)number("--listen", optarg, 1, 65535); break;
        case COUNT: is.count = (uint64_t)number("--count", optarg, 0, 1e15); break;
        case SECONDS: is.seconds = number("--seconds", optarg, 0, 1e6); break;
        case PARALLEL: is.parallel = (unsigned)number("--parallel", optarg, 1, MOST_PARALLEL); break;
        case RATE: is.rate = number("--rate", optarg, 0, 1e7); break;
        case PATIENCE: is.patience = number("--patience", optarg, 0.01, 1e3); break;
        case ASK: is.ask = 1; break;
        case ANSWER: is.answer = 1; break;
        case CORE: is.core = (int)number("--core", optarg, 0, 4095); break;
        default: exit(2);
        }
    }
    end_on_signal();
    pin_to(is.core);
    if (port && optind == argc)
        return listen_on((uint16_t)port);
    is.to.sin_family = AF_INET;
    if (port || argc - optind != 2 || !inet_aton(argv[optind], &is.to.sin_addr))
        misused("usage", "connect (--listen PORT | A.B.C.D PORT) [options]");
    is.to.sin_port = htons((uint16_t)number("PORT", argv[optind + 1], 1, 65535));
    prctl(PR_SET_TIMERSLACK, 1);
    times_us = malloc(MOST_TIMES * sizeof *times_us);
    if (!times_us)
        fail("malloc");
    for (unsigned slot = 0; slot < MOST_PARALLEL; slot++)
        under_way[slot].descriptor = -1;
    open_all();
    return 0;
}
