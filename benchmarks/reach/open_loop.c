/* Sends requests at a constant rate, whatever the server does, and measures each from the time at which it was due.

   open_loop PORT REQUESTS CONNECTIONS RATE SECONDS

   REQUESTS is a file of whole requests, each with a line before it that holds its length. They are sent in turn. RATE
   is in requests per second; 0 sends the next as soon as one is answered (a closed loop), to find the highest load.
   A request that is due while every connection waits for an answer is sent late, and the time that it waited counts: a
   server that stalls delays all that were due meanwhile, not just those that it had.

   One thread, so that it stays on a core. It prints one line of JSON: latencies in microseconds. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define ANSWER_MAX (1 << 20)
#define EVENTS_MAX 256
#define GRACE_NS 10000000000LL /* for the answers to the last requests */
#define WAIT_NS 100000000LL
#define CLOSED_LOOP_MAX 500000 /* requests a second for which there is room */

struct request {
    const char *bytes;
    size_t size;
};

struct connection {
    int socket;
    int64_t due;
    int64_t idle_since;
    size_t got; /* bytes of the answer so far */
    char *answer;
};

static struct request *requests;
static size_t request_count;
static uint32_t *latencies_us, *delays_us;
static size_t answered, sent, refused, samples_max;

static int poll, connection_count;
static struct connection **idle; /* a ring, so that every connection has its turn */
static int idle_first, idle_count;

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static void read_requests(const char *path) {
    int file = open(path, O_RDONLY);
    struct stat status;
    if (file < 0 || fstat(file, &status) < 0) fail(path);
    const char *at = mmap(NULL, status.st_size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, file, 0);
    if (at == MAP_FAILED) fail(path);
    for (const char *end = at + status.st_size; at < end;) {
        char *line_end;
        size_t size = strtoul(at, &line_end, 10);
        requests = realloc(requests, (request_count + 1) * sizeof *requests);
        requests[request_count++] = (struct request){line_end + 1, size};
        at = line_end + 1 + size;
    }
}

static void open_connection(struct connection *it, int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    it->socket = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(it->socket, (struct sockaddr *)&address, sizeof address) < 0) fail("connect");
    int on = 1;
    setsockopt(it->socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    fcntl(it->socket, F_SETFL, O_NONBLOCK);
    it->answer = malloc(ANSWER_MAX);
    struct epoll_event wish = {.events = EPOLLIN, .data.ptr = it};
    if (epoll_ctl(poll, EPOLL_CTL_ADD, it->socket, &wish) < 0) fail("epoll_ctl");
}

static void send_next(struct connection *it, int64_t due) {
    struct request *next = &requests[sent % request_count];
    /* Our own delay; not the time in which no connection was free. */
    delays_us[sent++] = (now_ns() - (due > it->idle_since ? due : it->idle_since)) / 1000;
    it->due = due;
    it->got = 0;
    for (size_t done = 0; done < next->size;) {
        ssize_t written = write(it->socket, next->bytes + done, next->size - done);
        if (written > 0) done += written;
        else if (written < 0 && errno != EAGAIN) fail("write");
    }
}

/* Returns whether the answer is whole; counts it then. */
static int read_answer(struct connection *it) {
    ssize_t size = read(it->socket, it->answer + it->got, ANSWER_MAX - 1 - it->got);
    if (size < 0 && errno == EAGAIN) return 0;
    if (size <= 0) fail("the server closed a connection");
    it->got += size;
    it->answer[it->got] = 0;
    char *body = strstr(it->answer, "\r\n\r\n");
    char *length = strcasestr(it->answer, "\r\ncontent-length:");
    if (!body || !length || it->got < body + 4 - it->answer + strtoul(length + 17, NULL, 10)) return 0;
    refused += strncmp(it->answer, "HTTP/1.1 200", 12) != 0;
    it->idle_since = now_ns();
    latencies_us[answered++] = (it->idle_since - it->due) / 1000;
    return 1;
}

static int by_value(const void *left, const void *right) {
    uint32_t a = *(const uint32_t *)left, b = *(const uint32_t *)right;
    return (a > b) - (a < b);
}

static uint32_t percentile(const uint32_t *sorted, size_t count, double share) {
    return sorted[(size_t)((count - 1) * share)];
}

static void report(double seconds) {
    if (!answered) fail("no request was answered");
    qsort(latencies_us, answered, sizeof *latencies_us, by_value);
    qsort(delays_us, sent, sizeof *delays_us, by_value);
    printf("{\"sent\": %zu, \"answered\": %zu, \"refused\": %zu, \"seconds\": %.3f, ", sent, answered, refused, seconds);
    printf("\"p50_us\": %u, \"p90_us\": %u, \"p99_us\": %u, \"p999_us\": %u, \"max_us\": %u, \"generator_late_p99_us\": %u}\n",
           percentile(latencies_us, answered, .5), percentile(latencies_us, answered, .9),
           percentile(latencies_us, answered, .99), percentile(latencies_us, answered, .999), latencies_us[answered - 1],
           percentile(delays_us, sent, .99));
}

/* Opens the connections, all of them idle. */
static void open_connections(int count, int port) {
    poll = epoll_create1(0);
    connection_count = count;
    idle = calloc(count, sizeof *idle);
    for (int number = 0; number < count; number++) {
        idle[idle_count++] = calloc(1, sizeof **idle);
        open_connection(idle[number], port);
    }
    usleep(500000); /* time for the server to accept them all */
}

/* Sends all that is due as long as a connection is idle; returns when the next request is due. */
static int64_t send_due(int64_t start, int64_t end, double rate) {
    for (;;) {
        int64_t now = now_ns();
        int64_t due = rate > 0 ? start + (int64_t)(sent * 1e9 / rate) : now;
        if (!idle_count || due > now || due >= end || sent == samples_max) return due;
        send_next(idle[idle_first], due);
        idle_first = (idle_first + 1) % connection_count;
        idle_count--;
    }
}

/* Waits for answers, but not longer than until a time at which there is something to send. */
static void read_answers(int64_t until) {
    int64_t now = now_ns(), wait = idle_count && until > now ? until - now : WAIT_NS;
    struct timespec timeout = {wait / 1000000000, wait % 1000000000};
    struct epoll_event ready[EVENTS_MAX];
    int found = epoll_pwait2(poll, ready, EVENTS_MAX, &timeout, NULL);
    for (int number = 0; number < found; number++)
        if (read_answer(ready[number].data.ptr))
            idle[(idle_first + idle_count++) % connection_count] = ready[number].data.ptr;
}

int main(int count, char **words) {
    if (count != 6) {
        fputs("open_loop PORT REQUESTS CONNECTIONS RATE SECONDS\n", stderr);
        return 2;
    }
    double rate = atof(words[4]), seconds = atof(words[5]);
    read_requests(words[2]);
    samples_max = rate > 0 ? rate * seconds + 1 : CLOSED_LOOP_MAX * seconds;
    latencies_us = calloc(samples_max, sizeof *latencies_us);
    delays_us = calloc(samples_max, sizeof *delays_us);
    prctl(PR_SET_TIMERSLACK, 1000); /* wake up within a microsecond, not within fifty */
    open_connections(atoi(words[3]), atoi(words[1]));

    int64_t start = now_ns(), end = start + (int64_t)(seconds * 1e9);
    for (;;) {
        int64_t next = send_due(start, end, rate);
        if (idle_count == connection_count && (next >= end || sent == samples_max)) break;
        if (now_ns() > end + GRACE_NS) {
            fputs("the server does not answer\n", stderr);
            return 1;
        }
        read_answers(next < end ? next : end + GRACE_NS);
    }
    report((now_ns() - start) / 1e9);
    return 0;
}
