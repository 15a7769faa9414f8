/* Loads the cable of the tests' guest from its first instruction on, in two ways at once; the far end is 10.9.0.2.
 *
 *     flood        datagrams to port 9000, without end; and what port 9000 sends over TCP is read, without end
 *     flood up     the first alone
 *     flood serve  is that TCP port */
#include <arpa/inet.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

static char data[65536];

static int opened(int kind, struct sockaddr_in *far)
{
    far->sin_family = AF_INET;
    far->sin_port = htons(9000);
    inet_pton(AF_INET, "10.9.0.2", &far->sin_addr);
    return socket(AF_INET, kind, 0);
}

static void serve(void)
{
    struct sockaddr_in far = {0};
    int listener = opened(SOCK_STREAM, &far), one = 1;
    signal(SIGCHLD, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&far, sizeof far) || listen(listener, 16))
        _exit(1);
    for (;;) {
        int connection = accept(listener, 0, 0);
        if (fork() == 0) {
            while (write(connection, data, sizeof data) > 0)
                ;
            _exit(0);
        }
        close(connection);
    }
}

int main(int count, char **words)
{
    struct sockaddr_in far = {0};
    if (count > 1 && words[1][0] == 's')
        serve();
    if (count > 1 || fork() == 0) {
        int out = opened(SOCK_DGRAM, &far);
        connect(out, (struct sockaddr *)&far, sizeof far);
        for (;;)
            send(out, data, 1000, 0);
    }
    int in = opened(SOCK_STREAM, &far);
    connect(in, (struct sockaddr *)&far, sizeof far);
    while (read(in, data, sizeof data) > 0)
        ;
    pause();
}
