/* A server that answers every inference request with the same bytes, as fast as sockets go: for bench/capacity.py.

   stub http|grpc REPLY_FILE THREADS: prints its port, serves until its standard input is closed, then prints as JSON how many requests
   it has answered, in all and on each connection. HTTP: the file is a whole reply. gRPC: the file is a message with its prefix,
   which goes out as HEADERS, DATA and trailers on the stream of each request. Heads up to BUFFER bytes, bodies of any length. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define BUFFER 32768
#define EVENTS 256
#define MOST 65536

typedef struct {
    int fd;
    long count;          /* requests answered */
    size_t length;       /* bytes in `in` */
    size_t skip;         /* bytes of a body that are still to come */
    size_t owed;         /* gRPC: bytes of DATA not yet given back to the connection's window */
    int greeted;         /* gRPC: the preface has come */
    unsigned char in[BUFFER];
} Connection;

typedef struct {
    int epoll;
    pthread_t thread;
} Worker;

static unsigned char *reply;
static size_t reply_length;
static int grpc;
static Connection *connections[MOST];
static int accepted;

static void die(const char *what) {
    perror(what);
    exit(1);
}

/* Replies are small and windows large: a socket that is full for a moment is waited for. */
static int put(int fd, const unsigned char *data, size_t length) {
    while (length) {
        ssize_t sent = send(fd, data, length, MSG_NOSIGNAL);
        if (sent < 0 && errno == EAGAIN) {
            struct pollfd room = {fd, POLLOUT, 0};
            poll(&room, 1, 1000);
        } else if (sent < 0) {
            return -1;
        } else {
            data += sent;
            length -= (size_t)sent;
        }
    }
    return 0;
}

static void frame(unsigned char *at, size_t length, int type, int flags, uint32_t stream) {
    at[0] = (unsigned char)(length >> 16), at[1] = (unsigned char)(length >> 8), at[2] = (unsigned char)length;
    at[3] = (unsigned char)type, at[4] = (unsigned char)flags;
    stream = htonl(stream);
    memcpy(at + 5, &stream, 4);
}

/* HPACK without a table: :status 200, content-type; grpc-status 0. */
static const unsigned char HEAD[] = "\x88\x0f\x10\x10" "application/grpc";
static const unsigned char TRAILERS[] = "\x00\x0b" "grpc-status" "\x01" "0";

static size_t grpc_reply(unsigned char *at, uint32_t stream) {
    unsigned char *begin = at;
    frame(at, sizeof HEAD - 1, 1, 4, stream), at += 9;
    memcpy(at, HEAD, sizeof HEAD - 1), at += sizeof HEAD - 1;
    frame(at, reply_length, 0, 0, stream), at += 9;
    memcpy(at, reply, reply_length), at += reply_length;
    frame(at, sizeof TRAILERS - 1, 1, 5, stream), at += 9;
    memcpy(at, TRAILERS, sizeof TRAILERS - 1), at += sizeof TRAILERS - 1;
    return (size_t)(at - begin);
}

/* How many bytes of `in` are done with; -1: not HTTP. What is to be said is sent. */
static ssize_t serve_http(Connection *c) {
    size_t at = 0;
    for (;;) {
        unsigned char *begin = c->in + at;
        unsigned char *end = memmem(begin, c->length - at, "\r\n\r\n", 4);
        if (!end)
            return c->length - at == BUFFER ? -1 : (ssize_t)at;
        size_t body = 0;
        for (unsigned char *line = begin; line < end; line = (unsigned char *)memchr(line, '\n', (size_t)(end + 2 - line)) + 1)
            if (!strncasecmp((char *)line, "content-length:", 15))
                body = strtoul((char *)line + 15, NULL, 10);
        size_t have = (size_t)(c->in + c->length - (end + 4));
        if (have < body) {
            /* The head is done with; the reply goes out with the body's last byte. */
            c->skip = body - have;
            return (ssize_t)c->length;
        }
        c->count++;
        if (put(c->fd, reply, reply_length))
            return -1;
        at = (size_t)(end + 4 - c->in) + body;
        if (at == c->length)
            return (ssize_t)at;
    }
}

static ssize_t serve_grpc(Connection *c) {
    static _Thread_local unsigned char out[1 << 20];
    size_t at = 0, said = 0;
    if (!c->greeted) {
        if (c->length < 24)
            return 0;
        if (memcmp(c->in, "PRI * HTTP/2.0", 14))
            return -1;
        c->greeted = 1, at = 24;
    }
    while (c->length - at >= 9) {
        unsigned char *head = c->in + at;
        size_t length = (size_t)head[0] << 16 | (size_t)head[1] << 8 | head[2];
        int type = head[3], flags = head[4];
        uint32_t stream;
        memcpy(&stream, head + 5, 4), stream = ntohl(stream) & 0x7fffffff;
        if (9 + length > BUFFER)
            return -1;
        if (c->length - at < 9 + length)
            break;
        if (said + reply_length + 256 > sizeof out) {
            if (put(c->fd, out, said))
                return -1;
            said = 0;
        }
        if (type == 0) {
            c->owed += length;
            if (flags & 1)
                c->count++, said += grpc_reply(out + said, stream);
        } else if (type == 4 && !(flags & 1)) {
            frame(out + said, 0, 4, 1, 0), said += 9;
        } else if (type == 6 && !(flags & 1)) {
            frame(out + said, 8, 6, 1, 0), memcpy(out + said + 9, head + 9, 8), said += 17;
        }
        at += 9 + length;
    }
    if (c->owed > 16384) {
        uint32_t more = htonl((uint32_t)c->owed);
        frame(out + said, 4, 8, 0, 0), memcpy(out + said + 9, &more, 4), said += 13;
        c->owed = 0;
    }
    return put(c->fd, out, said) ? -1 : (ssize_t)at;
}

/* -1: the connection is over. */
static int serve(Connection *c) {
    ssize_t got = recv(c->fd, c->in + c->length, BUFFER - c->length, 0);
    if (got <= 0)
        return got < 0 && errno == EAGAIN ? 0 : -1;
    if (c->skip) {
        /* Nothing else lies in the buffer then, and no client of ours sends the next request before the reply. */
        size_t of_body = (size_t)got < c->skip ? (size_t)got : c->skip;
        c->skip -= of_body;
        if (c->skip)
            return 0;
        c->count++;
        return put(c->fd, reply, reply_length);
    }
    c->length += (size_t)got;
    ssize_t done = grpc ? serve_grpc(c) : serve_http(c);
    if (done < 0)
        return -1;
    c->length -= (size_t)done;
    if (c->length)
        memmove(c->in, c->in + done, c->length);
    return 0;
}

static void *work(void *argument) {
    Worker *self = argument;
    struct epoll_event events[EVENTS];
    for (;;) {
        int ready = epoll_wait(self->epoll, events, EVENTS, -1);
        for (int n = 0; n < ready; n++) {
            Connection *c = events[n].data.ptr;
            if (serve(c))
                close(c->fd);
        }
    }
    return NULL;
}

static void take(int fd, Worker *worker) {
    int on = 1;
    Connection *c = calloc(1, sizeof *c);
    if (!c)
        die("calloc");
    if (accepted == MOST) {
        close(fd);
        return;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    c->fd = fd;
    connections[accepted++] = c;
    unsigned char settings[9];
    frame(settings, 0, 4, 0, 0);
    if (grpc)
        put(fd, settings, sizeof settings);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    if (epoll_ctl(worker->epoll, EPOLL_CTL_ADD, fd, &event))
        die("epoll_ctl");
}

static void read_reply(const char *path) {
    FILE *file = fopen(path, "rb");
    if (!file)
        die(path);
    reply = malloc(BUFFER);
    reply_length = fread(reply, 1, BUFFER, file);
    fclose(file);
}

int main(int argc, char **argv) {
    if (argc != 4)
        return fprintf(stderr, "usage: stub http|grpc REPLY_FILE THREADS\n"), 2;
    grpc = !strcmp(argv[1], "grpc");
    read_reply(argv[2]);
    int threads = atoi(argv[3]);
    Worker *workers = calloc((size_t)threads, sizeof *workers);
    for (int n = 0; n < threads; n++) {
        workers[n].epoll = epoll_create1(0);
        if (pthread_create(&workers[n].thread, NULL, work, &workers[n]))
            die("pthread_create");
    }
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 4096))
        die("listen");
    getsockname(listener, (struct sockaddr *)&address, &size);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    struct pollfd watched[] = {{listener, POLLIN, 0}, {0, POLLIN, 0}};
    for (int next = 0;;) {
        poll(watched, 2, -1);
        if (watched[1].revents)
            break;
        for (int fd; (fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0; next = (next + 1) % threads)
            take(fd, &workers[next]);
    }
    long total = 0;
    for (int n = 0; n < accepted; n++)
        total += connections[n]->count;
    printf("{\"requests\": %ld, \"connections\": [", total);
    for (int n = 0; n < accepted; n++)
        printf("%s%ld", n ? ", " : "", connections[n]->count);
    printf("]}\n");
    return 0;
}
