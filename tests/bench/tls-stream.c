/* SPDX-License-Identifier: BSD-3-Clause */
/* What TLS 1.3 itself takes on loopback: a stream, or a ping-pong.
 *
 *   tls-stream CERT KEY MS CONNECTIONS REQUEST ANSWER
 *
 * On each connection one thread sends REQUEST bytes and another one answers
 * with ANSWER bytes, for MS milliseconds.  REQUEST 0: nobody asks, ANSWER
 * bytes are written again and again.  One line of JSON: bytes of answers each
 * second, CPU time for each of them (both ends together), time of a round.
 */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <openssl/err.h>
#include <openssl/ssl.h>

#include "common/clock.h"

#define CONNECTIONS_MAX 64

struct end {
    SSL *ssl;
    size_t request, answer;
    uint64_t rounds, bytes;
};

static atomic_bool over;

static void
die(const char *what)
{
    fprintf(stderr, "tls-stream: %s\n", what);
    ERR_print_errors_fp(stderr);
    exit(1);
}

/* All of it; false when the stream has ended. */
static bool
get(SSL *ssl, char *buf, size_t len)
{
    size_t n;

    for (size_t done = 0; done < len; done += n) {
        if (SSL_read_ex(ssl, buf + done, len - done, &n) != 1)
            return false;
    }
    return true;
}

static bool
put(SSL *ssl, const char *buf, size_t len)
{
    size_t n;

    return len == 0 || SSL_write_ex(ssl, buf, len, &n) == 1;
}

static void *
answerer(void *arg)
{
    struct end *e = arg;
    char *buf = calloc(1, e->request + e->answer);

    if (!buf || SSL_accept(e->ssl) != 1)
        die("accept");
    while (!over && get(e->ssl, buf, e->request) && put(e->ssl, buf, e->answer))
        ;
    SSL_shutdown(e->ssl);
    free(buf);
    return NULL;
}

static void *
asker(void *arg)
{
    struct end *e = arg;
    char *buf = calloc(1, e->request + e->answer);

    if (!buf || SSL_connect(e->ssl) != 1)
        die("connect");
    while (put(e->ssl, buf, over ? 0 : e->request) && !(over && e->request) &&
           get(e->ssl, buf, e->answer)) {
        e->rounds++;
        e->bytes += e->answer;
    }
    SSL_shutdown(e->ssl);
    free(buf);
    return NULL;
}

/* Two ends of a TCP connection over loopback. */
static void
connect_both(int fds[2])
{
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof to;
    int on = 1, l = socket(AF_INET, SOCK_STREAM, 0);

    fds[0] = socket(AF_INET, SOCK_STREAM, 0);
    if (l < 0 || bind(l, (struct sockaddr *)&to, len) || listen(l, 1) ||
        getsockname(l, (struct sockaddr *)&to, &len) || fds[0] < 0 ||
        connect(fds[0], (struct sockaddr *)&to, len))
        die("no connection over loopback");
    fds[1] = accept(l, NULL, NULL);
    close(l);
    for (int i = 0; i < 2; i++)
        setsockopt(fds[i], IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

static SSL *
secure(SSL_CTX *ctx, int fd)
{
    SSL *ssl = SSL_new(ctx);

    if (!ssl || SSL_set_fd(ssl, fd) != 1)
        die("no TLS");
    return ssl;
}

static double
cpu_us(void)
{
    struct rusage r;

    getrusage(RUSAGE_SELF, &r);
    return (double)(r.ru_utime.tv_sec + r.ru_stime.tv_sec) * 1e6 +
           (double)(r.ru_utime.tv_usec + r.ru_stime.tv_usec);
}

int
main(int argc, char **argv)
{
    static struct end asks[CONNECTIONS_MAX], answers[CONNECTIONS_MAX];
    static pthread_t threads[2 * CONNECTIONS_MAX];
    SSL_CTX *client = SSL_CTX_new(TLS_client_method());
    SSL_CTX *server = SSL_CTX_new(TLS_server_method());
    uint64_t bytes = 0, rounds = 0, begun;
    double us, cpu;
    int n;

    if (argc != 7 || !client || !server)
        die("usage: tls-stream CERT KEY MS CONNECTIONS REQUEST ANSWER");
    if (SSL_CTX_use_certificate_chain_file(server, argv[1]) != 1 ||
        SSL_CTX_use_PrivateKey_file(server, argv[2], SSL_FILETYPE_PEM) != 1)
        die("certificate or key");
    SSL_CTX_set_min_proto_version(client, TLS1_3_VERSION);
    signal(SIGPIPE, SIG_IGN);
    n = atoi(argv[4]);
    if (n < 1 || n > CONNECTIONS_MAX)
        die("1 to 64 connections");
    cpu = cpu_us();
    begun = clock_us();
    for (int i = 0; i < n; i++) {
        int fds[2];

        connect_both(fds);
        asks[i].request = answers[i].request = strtoul(argv[5], NULL, 10);
        asks[i].answer = answers[i].answer = strtoul(argv[6], NULL, 10);
        asks[i].ssl = secure(client, fds[0]);
        answers[i].ssl = secure(server, fds[1]);
        if (pthread_create(&threads[2 * i], NULL, asker, &asks[i]) ||
            pthread_create(&threads[2 * i + 1], NULL, answerer, &answers[i]))
            die("no thread");
    }
    usleep((unsigned)atoi(argv[3]) * 1000);
    over = true;
    for (int i = 0; i < 2 * n; i++)
        pthread_join(threads[i], NULL);
    us = (double)(clock_us() - begun);
    cpu = cpu_us() - cpu;
    for (int i = 0; i < n; i++) {
        bytes += asks[i].bytes;
        rounds += asks[i].rounds;
    }
    printf("{\"mib_s\": %.1f, \"cpu_us_mib\": %.1f, \"round_us\": %.2f, "
           "\"cpu_share\": %.3f, \"cipher\": \"%s\"}\n",
           (double)bytes / us * 1e6 / 1048576, cpu / ((double)bytes / 1048576),
           us * n / (double)rounds, cpu / us, SSL_get_cipher(asks[0].ssl));
    return 0;
}
