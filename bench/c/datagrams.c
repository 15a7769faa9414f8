/* Sends small datagrams from a socket, in blocks: what a packet costs on its way out, or in.
 *
 *     datagrams ADDRESS PORT SIZE CORE
 *
 * Each line on standard input is a number of seconds; so long it sends as fast as it can, and then says what it did,
 * {"sent", "seconds", "cpu_s"} in one line. A cable's other end is worked on in the sender's own system call, so the
 * processor time has the receiver's part too. SOCK_DGRAM, unlike `traffic`: a socket has a cgroup. */
#include "common.h"
#include <arpa/inet.h>
#include <sys/socket.h>

enum { BATCH = 64, BATCHES = 16, MOST = 1400 };

int main(int argc, char **argv)
{
    if (argc != 5) {
        fprintf(stderr, "usage: datagrams ADDRESS PORT SIZE CORE\n");
        return 2;
    }
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)number("PORT", argv[2], 1, 65535))};
    if (inet_pton(AF_INET, argv[1], &to.sin_addr) != 1)
        misused("ADDRESS", argv[1]);
    size_t size = (size_t)number("SIZE", argv[3], 1, MOST);
    cpu_set_t cores;
    CPU_ZERO(&cores);
    CPU_SET((int)number("CORE", argv[4], 0, CPU_SETSIZE - 1), &cores);
    if (sched_setaffinity(0, sizeof cores, &cores))
        fail("sched_setaffinity");
    int sock = socket(AF_INET, SOCK_DGRAM, 0);
    if (sock < 0 || connect(sock, (struct sockaddr *)&to, sizeof to))
        fail("socket");

    static char data[MOST];
    struct iovec part = {data, size};
    struct mmsghdr batch[BATCH] = {0};
    for (int i = 0; i < BATCH; i++) {
        batch[i].msg_hdr.msg_iov = &part;
        batch[i].msg_hdr.msg_iovlen = 1;
    }
    char line[64];
    while (fgets(line, sizeof line, stdin)) {
        uint64_t began = now_ns(CLOCK_MONOTONIC), until = began + (uint64_t)(atof(line) * 1e9), now = began;
        double cpu = cpu_s();
        unsigned long sent = 0;
        while (now < until) {
            for (int i = 0; i < BATCHES; i++) {
                int some = sendmmsg(sock, batch, BATCH, 0);
                sent += some > 0 ? (unsigned long)some : 0;
            }
            now = now_ns(CLOCK_MONOTONIC);
        }
        printf("{\"sent\": %lu, \"seconds\": %.9f, \"cpu_s\": %.9f}\n", sent, (double)(now - began) / 1e9, cpu_s() - cpu);
        fflush(stdout);
    }
    return 0;
}
