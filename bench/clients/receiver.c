/* A crowd of WebSocket clients that uses as little CPU as possible: one thread, one epoll, no allocation per message.

   The program connects, sends openings (the texts by which a session joins), answers pings, and records in shared memory
   which connection received which alert, and when. It recognizes an alert by "bench-" and digits anywhere in the payload,
   so the same program receives from geocast and from every other server.

   Shared memory: HEADER bytes of counters (see `struct counters`), one u64 per connection (the time at which it became
   ready), then records. Times are CLOCK_MONOTONIC in ns, which all processes of a machine share. The parent only reads
   the shared memory, except that it writes `asked`.

   Usage: receiver SHARED OPENINGS HOST PORT SOURCE COUNT FIRST CAPACITY INFLIGHT READY_NEEDLE RETRY_MIN_MS RETRY_MAX_MS
                   NAP_US
   OPENINGS has texts, each as u32 length and bytes: the HTTP request; then for each connection the text that it sends
   after the 101; then, unless that is the same, the text that each connection sends later: when it reconnects, or when
   it is one of the first `asked` connections. With RETRY_MAX_MS 0 connections do not reconnect. With NAP_US 0 the program
   stays awake while messages come and for SPIN_NS after that; otherwise it sleeps for NAP_US whenever nothing has come. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define HEADER 4096
#define MARK "bench-"
#define BUFFER (256 * 1024)
#define REST_MAX 16384 /* of an incomplete frame or response */
#define EVENTS 512
#define PER_ADDRESS 10000
#define SPIN_NS 20000000u
#define OK "\"type\":\"ok\""
#define OK_MAX 100 /* bytes of a payload that may be an `ok` */

struct counters { /* read by clients/crowd.py in this order */
    volatile uint64_t ready, readied, closed, failed, records, lost_records, pongs, bytes, bad_frames, said, oks, asked;
};
struct record { uint64_t when_ns; uint32_t connection, number; };
struct text { uint32_t size; const char *bytes; };
enum state { IDLE, CONNECTING, SHAKING, OPENING, READY };
struct connection { int fd; uint8_t state, returning; uint16_t rest_size; char *rest; uint64_t retry_ns; };

static struct counters *counters;
static volatile uint64_t *ready_ns;
static struct record *records;
static struct connection *connections;
static struct text request, *openings;
static struct sockaddr_in server, source;
static const char *needle;
static uint32_t count, first, inflight, pending, waiting, next_idle;
static uint64_t capacity, retry_min_ns, retry_max_ns, nap_ns;
static int epoll;
static char buffer[BUFFER + REST_MAX];

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void die(const char *what) { perror(what); exit(1); }

static void listen_for(struct connection *c, uint32_t events, int operation) {
    struct epoll_event event = {.events = events, .data.u32 = (uint32_t)(c - connections)};
    if (epoll_ctl(epoll, operation, c->fd, &event) < 0) die("epoll_ctl");
}

static void hang_up(struct connection *c) {
    if (c->state == READY) counters->ready--, counters->closed++;
    else pending--, counters->failed++;
    close(c->fd);
    c->fd = -1, c->state = IDLE, c->rest_size = 0;
    if (retry_max_ns) {
        uint64_t window = retry_max_ns - retry_min_ns + 1;
        c->retry_ns = now_ns() + retry_min_ns + ((uint64_t)rand() * RAND_MAX + (uint64_t)rand()) % window;
        waiting++;
    }
}

static void dial(struct connection *c) {
    int one = 1;
    struct sockaddr_in from = source; /* one address has too few ports for all connections */
    from.sin_addr.s_addr = htonl(ntohl(source.sin_addr.s_addr) + (uint32_t)(c - connections) / PER_ADDRESS);
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (c->fd < 0) die("socket");
    setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
    if (bind(c->fd, (struct sockaddr *)&from, sizeof from) < 0) die("bind");
    c->state = CONNECTING, pending++;
    if (connect(c->fd, (struct sockaddr *)&server, sizeof server) < 0 && errno != EINPROGRESS) hang_up(c);
    else listen_for(c, EPOLLOUT, EPOLL_CTL_ADD);
}

static void dial_some(void) {
    while (next_idle < count && pending < inflight) dial(&connections[next_idle++]);
    if (!waiting) return;
    uint64_t now = now_ns();
    for (uint32_t i = 0; i < next_idle && pending < inflight; i++) {
        struct connection *c = &connections[i];
        if (c->state != IDLE || c->retry_ns > now) continue;
        waiting--;
        dial(c);
    }
}

static int say(struct connection *c, struct text text) {
    ssize_t sent = text.size ? send(c->fd, text.bytes, text.size, MSG_NOSIGNAL) : 0;
    if (sent == (ssize_t)text.size) return 1;
    hang_up(c); /* a short opening always fits into an empty socket buffer */
    return 0;
}

/* Sends the later text of the first `asked` connections, once each. Connections that are not ready send nothing. */
static void say_what_is_asked(void) {
    for (; counters->said < counters->asked && counters->said < count; counters->said++) {
        struct connection *c = &connections[counters->said];
        if (c->state == READY) say(c, openings[(size_t)count + counters->said]);
    }
}

/* Makes the kernel acknowledge data when we read it, on our core. Otherwise it does so 40 ms after the data has come, on
   the core of the server. The kernel returns to this default whenever we send something. */
static void acknowledge_at_once(struct connection *c) {
    int one = 1;
    setsockopt(c->fd, IPPROTO_TCP, TCP_QUICKACK, &one, sizeof one);
}

static void become_ready(struct connection *c, uint64_t when) {
    c->state = READY, c->returning = 1, pending--;
    ready_ns[c - connections] = when;
    counters->ready++, counters->readied++;
    if (nap_ns) acknowledge_at_once(c);
}

static void connected(struct connection *c) {
    int error = 0, one = 1;
    socklen_t size = sizeof error;
    getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error) { hang_up(c); return; }
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    c->state = SHAKING;
    listen_for(c, EPOLLIN, EPOLL_CTL_MOD);
    say(c, request);
}

static void note(struct connection *c, const char *payload, size_t size, uint64_t when) {
    const char *at = payload, *end = payload + size;
    while ((at = memmem(at, (size_t)(end - at), MARK, sizeof MARK - 1))) {
        uint32_t number = 0;
        at += sizeof MARK - 1;
        if (at >= end || *at < '0' || *at > '9') continue;
        for (; at < end && *at >= '0' && *at <= '9'; at++) number = number * 10 + (uint32_t)(*at - '0');
        uint64_t index = counters->records;
        if (index >= capacity) { counters->lost_records++; continue; }
        records[index] = (struct record){when, first + (uint32_t)(c - connections), number};
        __atomic_store_n(&counters->records, index + 1, __ATOMIC_RELEASE);
    }
}

static int pong(struct connection *c, const char *payload, size_t size) {
    char frame[6 + 125] = {(char)0x8a, (char)(0x80 | size), 0, 0, 0, 0};
    if (size > 125) return 0;
    memcpy(frame + 6, payload, size);
    counters->pongs++;
    if (send(c->fd, frame, 6 + size, MSG_NOSIGNAL) != (ssize_t)(6 + size)) return 0;
    if (nap_ns) acknowledge_at_once(c);
    return 1;
}

/* Handles one frame (RFC 6455, 5.2). Returns its size, 0 if it is incomplete, -1 if the connection ends. */
static ssize_t take_frame(struct connection *c, const unsigned char *data, size_t size, uint64_t when) {
    if (size < 2) return 0;
    size_t at = 2, length = data[1] & 0x7f;
    if (data[1] & 0x80) { counters->bad_frames++; return -1; }
    if (length >= 126) {
        size_t wide = length == 126 ? 2 : 8;
        if (size < at + wide) return 0;
        for (length = 0; wide; wide--) length = length << 8 | data[at++];
    }
    if (size < at + length) return 0;
    const char *payload = (const char *)data + at;
    int opcode = data[0] & 0x0f;
    if (opcode == 8) return -1;
    if (opcode == 9 && !pong(c, payload, length)) return -1;
    if (opcode < 3) {
        if (c->state == OPENING && memmem(payload, length, needle, strlen(needle))) become_ready(c, when);
        if (length <= OK_MAX && memmem(payload, length, OK, sizeof OK - 1)) counters->oks++;
        note(c, payload, length, when);
    }
    return (ssize_t)(at + length);
}

/* Handles the answer to the handshake. Returns its size, 0 if it is incomplete, -1 if the connection ends. */
static ssize_t take_response(struct connection *c, const char *data, size_t size, uint64_t when) {
    const char *end = memmem(data, size, "\r\n\r\n", 4);
    if (!end) return 0;
    if (size < 12 || memcmp(data, "HTTP/1.1 101", 12)) return -1;
    c->state = OPENING;
    if (!say(c, openings[(size_t)c->returning * count + (size_t)(c - connections)])) return -2;
    if (!*needle) become_ready(c, when);
    return end + 4 - data;
}

static void receive(struct connection *c) {
    size_t kept = c->rest_size;
    char *data = buffer + REST_MAX - kept; /* the rest of the last read goes right before the new data */
    if (kept) memcpy(data, c->rest, kept);
    ssize_t got = recv(c->fd, buffer + REST_MAX, BUFFER, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got <= 0) { hang_up(c); return; }
    uint64_t when = now_ns();
    counters->bytes += (uint64_t)got;
    size_t size = kept + (size_t)got;
    c->rest_size = 0;
    while (size) {
        ssize_t used = c->state == SHAKING ? take_response(c, data, size, when)
                                           : take_frame(c, (unsigned char *)data, size, when);
        if (used == -2) return;
        if (used < 0) { hang_up(c); return; }
        if (!used) break;
        data += used, size -= (size_t)used;
    }
    if (!size) return;
    if (size > REST_MAX || !(c->rest = c->rest ? c->rest : malloc(REST_MAX))) { counters->bad_frames++; hang_up(c); return; }
    memcpy(c->rest, data, size);
    c->rest_size = (uint16_t)size;
}

static struct text read_text(const char **at) {
    struct text text;
    memcpy(&text.size, *at, 4);
    text.bytes = *at + 4;
    *at += 4 + text.size;
    return text;
}

static void load_openings(const char *path) {
    struct stat status;
    int fd = open(path, O_RDONLY);
    if (fd < 0 || fstat(fd, &status) < 0) die(path);
    const char *at = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (at == MAP_FAILED) die(path);
    const char *end = at + status.st_size;
    close(fd);
    openings = calloc(2 * (size_t)count, sizeof *openings);
    request = read_text(&at);
    for (uint32_t i = 0; i < 2 * count; i++) openings[i] = at < end ? read_text(&at) : openings[i - count];
}

static void share(const char *path) {
    size_t size = HEADER + 8 * (size_t)count + sizeof(struct record) * capacity;
    int fd = open(path, O_RDWR);
    if (fd < 0) die(path);
    char *shared = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (shared == MAP_FAILED) die("mmap");
    close(fd);
    counters = (struct counters *)shared;
    ready_ns = (uint64_t *)(shared + HEADER);
    records = (struct record *)(shared + HEADER + 8 * (size_t)count);
}

/* Returns how long epoll may wait. Waking a process that sleeps in epoll costs the sender as much as a send, which it
   would not over a real network. So the crowd stays awake while messages come, or never waits in epoll. */
static int patience_ms(uint64_t last_event_ns) {
    if (nap_ns) return 0;
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
    if (now_ns() - last_event_ns < SPIN_NS) return 0;
    return waiting ? 5 : next_idle < count ? 50 : 1000;
}

static void nap(void) {
    struct timespec t = {.tv_nsec = (long)nap_ns};
    nanosleep(&t, NULL);
}

int main(int argc, char **argv) {
    if (argc != 14) { fprintf(stderr, "receiver: see its source for its arguments\n"); return 2; }
    server = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[4]))};
    source = (struct sockaddr_in){.sin_family = AF_INET};
    if (inet_pton(AF_INET, argv[3], &server.sin_addr) != 1 || inet_pton(AF_INET, argv[5], &source.sin_addr) != 1) return 2;
    count = (uint32_t)strtoul(argv[6], NULL, 10), first = (uint32_t)strtoul(argv[7], NULL, 10);
    capacity = strtoull(argv[8], NULL, 10), inflight = (uint32_t)strtoul(argv[9], NULL, 10);
    needle = argv[10];
    retry_min_ns = strtoull(argv[11], NULL, 10) * 1000000u, retry_max_ns = strtoull(argv[12], NULL, 10) * 1000000u;
    nap_ns = strtoull(argv[13], NULL, 10) * 1000u;
    srand(first + 1);
    share(argv[1]);
    load_openings(argv[2]);
    connections = calloc(count, sizeof *connections);
    if ((epoll = epoll_create1(0)) < 0) die("epoll_create1");
    struct epoll_event events[EVENTS];
    uint64_t last_event_ns = 0;
    for (pid_t parent = getppid(); getppid() == parent;) { /* ends with the process that started it */
        dial_some();
        say_what_is_asked();
        int n = epoll_wait(epoll, events, EVENTS, patience_ms(last_event_ns));
        if (n > 0) last_event_ns = now_ns();
        else if (nap_ns) nap();
        for (int i = 0; i < n; i++) {
            struct connection *c = &connections[events[i].data.u32];
            if (c->state == CONNECTING) connected(c);
            else if (c->state != IDLE) receive(c);
        }
    }
    return 0;
}
