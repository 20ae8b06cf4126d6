/* The bare send loop: a fan-out that only calls send(), once per connection, in the order of accept.

   The program answers any request with a constant 101, and sends each frame from the control port to all connections.
   It matches, checks and parses nothing, and drops what a full socket does not take.

   Usage: raw STREAM_PORT CONTROL_PORT. On the control port a frame is a u32 length and bytes. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX_FDS 65536
#define MAX_FRAME (1 << 20)
static const char SWITCH[] = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";

static int epoll, audience[MAX_FDS], place[MAX_FDS], size;

static void die(const char *what) { perror(what); exit(1); }

static void watch(int fd) {
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0) die("epoll_ctl");
}

static int listen_on(int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0 || listen(fd, 4096) < 0) die("listen");
    watch(fd);
    return fd;
}

static int accept_from(int listener) {
    int one = 1, fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
    if (fd < 0 || fd >= MAX_FDS) die("accept");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    watch(fd);
    return fd;
}

static void leave(int fd) {
    if (place[fd]) {
        int last = audience[--size];
        audience[place[fd] - 1] = last, place[last] = place[fd], place[fd] = 0;
    }
    close(fd);
}

static void hear(int fd) { /* a handshake in one piece, or a pong */
    char data[4096];
    ssize_t got = recv(fd, data, sizeof data, 0);
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) { leave(fd); return; }
    if (place[fd]) return;
    if (send(fd, SWITCH, sizeof SWITCH - 1, MSG_NOSIGNAL) < 0) { leave(fd); return; }
    audience[size] = fd, place[fd] = ++size;
}

static int read_all(int fd, char *into, size_t left) {
    while (left) {
        ssize_t got = recv(fd, into, left, 0);
        if (got < 0 && errno == EAGAIN) continue;
        if (got <= 0) return 0;
        into += got, left -= (size_t)got;
    }
    return 1;
}

static int send_to_all(int control) {
    static char frame[MAX_FRAME];
    uint32_t length;
    if (!read_all(control, (char *)&length, sizeof length) || length > MAX_FRAME || !read_all(control, frame, length))
        return 0;
    for (int i = 0; i < size; i++) (void)!send(audience[i], frame, length, MSG_NOSIGNAL | MSG_DONTWAIT);
    return 1;
}

int main(int argc, char **argv) {
    if (argc != 3) { fprintf(stderr, "usage: raw STREAM_PORT CONTROL_PORT\n"); return 2; }
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    if ((epoll = epoll_create1(0)) < 0) die("epoll_create1");
    int listener = listen_on(atoi(argv[1])), control_listener = listen_on(atoi(argv[2])), control = -1;
    struct epoll_event events[256];
    for (;;) {
        int n = epoll_wait(epoll, events, 256, -1);
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;
            if (fd == listener) accept_from(fd);
            else if (fd == control_listener) control = accept_from(fd);
            else if (fd == control) { if (!send_to_all(fd)) close(fd), control = -1; }
            else hear(fd);
        }
    }
}
