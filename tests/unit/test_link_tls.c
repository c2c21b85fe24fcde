/* SPDX-License-Identifier: BSD-3-Clause */
/* Links over TLS to nbdkit: whom they trust and whom not, and what a slow,
 * stopped or killed server does to them. */
#include "common/tlsdir.h"
#include "tests/unit/link_peer.h"

/* Our CA with certificates for: a server at 127.0.0.1, one at 127.0.0.9, one
 * that has expired, one that the CRL names, and the client; and another CA
 * with a server at 127.0.0.1.  Each server's directory is what nbdkit wants. */
static const char make_certificates[] =
    "set -e; exec >make.log 2>&1\n"
    "ca() {\n"
    "  mkdir $1; touch $1/index; echo 1000 >$1/serial; echo 1000 "
    ">$1/crlnumber\n"
    "  cat >$1/conf <<EOF\n"
    "[ca]\ndefault_ca=d\n[d]\nnew_certs_dir=$1\ndatabase=$1/index\n"
    "serial=$1/serial\ncrlnumber=$1/crlnumber\ndefault_md=sha256\n"
    "default_crl_days=30\npolicy=p\nunique_subject=no\n[p]\ncommonName="
    "supplied\n"
    "[req]\ndistinguished_name=n\n[n]\n"
    "EOF\n"
    "  openssl ecparam -name prime256v1 -genkey -noout -out $1/key.pem\n"
    "  openssl req -x509 -new -key $1/key.pem -subj /CN=$1 -days 30 \\\n"
    "    -addext basicConstraints=critical,CA:TRUE \\\n"
    "    -addext keyUsage=critical,keyCertSign,cRLSign \\\n"
    "    -config $1/conf -out $1/cert.pem\n"
    "}\n"
    "leaf() {\n" /* CA NAME SAN START END */
    "  mkdir $2; cp $1/cert.pem $2/ca-cert.pem\n"
    "  openssl ecparam -name prime256v1 -genkey -noout -out $2/key.pem\n"
    "  openssl req -new -key $2/key.pem -subj /CN=$2 -config $1/conf \\\n"
    "    -out $2/csr\n"
    "  echo subjectAltName=$3 >$2/ext\n"
    "  openssl ca -batch -config $1/conf -cert $1/cert.pem \\\n"
    "    -keyfile $1/key.pem -in $2/csr -extfile $2/ext -startdate $4 \\\n"
    "    -enddate $5 -notext -out $2/cert.pem\n"
    "  ln -s cert.pem $2/server-cert.pem; ln -s key.pem $2/server-key.pem\n"
    "}\n"
    "long='20200101000000Z 20980101000000Z'\n"
    "ca ours; ca foreign\n"
    "leaf ours good IP:127.0.0.1 $long\n"
    "leaf ours elsewhere IP:127.0.0.9 $long\n"
    "leaf ours expired IP:127.0.0.1 20200101000000Z 20210101000000Z\n"
    "leaf ours revoked IP:127.0.0.1 $long\n"
    "leaf ours client DNS:hosta $long\n"
    "leaf foreign stranger IP:127.0.0.1 $long\n"
    "c='-config ours/conf -cert ours/cert.pem -keyfile ours/key.pem'\n"
    "openssl ca $c -revoke revoked/cert.pem\n"
    "openssl ca $c -gencrl -out crl.pem\n";

static char work[] = "/tmp/test_link_tls.XXXXXX";
static struct tlsdir *tls; /* ours: CA, CRL and the client's certificate */

static int
group_setup(void **state)
{
    static const struct tlsdir_files files = {.ca = "ours/cert.pem",
                                              .cert = "client/cert.pem",
                                              .key = "client/key.pem",
                                              .crl = "crl.pem"};

    (void)state;
    if (mkdtemp(work) == NULL || chdir(work) == -1 ||
        mkdir("run", 0700) == -1 || system(make_certificates) != 0)
        return -1;
    tls = tlsdir_create("run", &files);
    return tls ? 0 : -1;
}

static int
group_teardown(void **state)
{
    char command[64];

    (void)state;
    tlsdir_destroy(tls);
    snprintf(command, sizeof command, "rm -r '%s'", work);
    return chdir("/") == 0 && system(command) == 0 ? 0 : -1;
}

struct fixture {
    int listen_fd;
    pid_t pid;
    struct link_options opt;
    struct link *link;
    struct link_failures failures;
};

static bool
failed_only_as(struct fixture *f, enum link_failure kind)
{
    for (unsigned i = 0; i < LINK_FAILURES; i++)
        if ((f->failures.of[i] > 0) != (i == kind))
            return false;
    return true;
}

static int
setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    uint16_t port;

    f->listen_fd = bound_socket(&port);
    f->opt = options_for(port);
    f->opt.tls_dir = tlsdir_path(tls);
    f->opt.failures = &f->failures;
    *state = f;
    return 0;
}

static int
teardown(void **state)
{
    struct fixture *f = *state;

    link_destroy(f->link);
    if (f->pid)
        nbdkit_stop(f->pid);
    close(f->listen_fd);
    free(f);
    return 0;
}

/* certificates is the server's directory; more are further arguments. */
static void
serve(struct fixture *f, const char *certificates, const char *const *more)
{
    const char *argv[32] = {"--tls=require", "--tls-verify-peer",
                            "--filter=delay"};
    char option[128];
    size_t n = 3;

    snprintf(option, sizeof option, "--tls-certificates=%s/%s", work,
             certificates);
    argv[n++] = option;
    argv[n++] = "memory";
    argv[n++] = "64M";
    while (more && *more)
        argv[n++] = *more++;
    f->pid = nbdkit_start(f->listen_fd, argv);
}

/* ---- whom we trust ---- */

static void
test_link_tls_good_server_is_trusted(void **state)
{
    struct fixture *f = *state;

    serve(f, "good", NULL);
    f->link = link_at(&f->opt);
    eventually(status_of(f->link).would_serve);
    assert_int_equal(status_of(f->link).size, 64 << 20);
    for (unsigned i = 0; i < LINK_FAILURES; i++)
        assert_int_equal(f->failures.of[i], 0);
}

/* The server is refused, at once and again, and it is the certificate. */
static void
is_refused(struct fixture *f, const char *certificates)
{
    serve(f, certificates, NULL);
    f->link = link_at(&f->opt);
    eventually(status_of(f->link).error[0]);
    assert_non_null(
        strstr(status_of(f->link).error, "certificate verification"));
    assert_non_null(strstr(status_of(f->link).error, f->opt.address));
    assert_int_equal(state_of(f->link), LINK_CONNECTING);
    assert_false(status_of(f->link).would_serve);
    assert_true(failed_only_as(f, LINK_FAIL_CERTIFICATE));
}

static void
test_link_tls_certificate_for_another_address_is_refused(void **state)
{
    is_refused(*state, "elsewhere");
}

static void
test_link_tls_foreign_ca_is_refused(void **state)
{
    is_refused(*state, "stranger");
}

static void
test_link_tls_expired_certificate_is_refused(void **state)
{
    is_refused(*state, "expired");
}

static void
test_link_tls_revoked_certificate_is_refused(void **state)
{
    is_refused(*state, "revoked");
}

/* Proof that it was the list: without it, the same server is taken. */
static void
test_link_tls_without_crl_nothing_is_revoked(void **state)
{
    static const struct tlsdir_files files = {.ca = "ours/cert.pem",
                                              .cert = "client/cert.pem",
                                              .key = "client/key.pem"};
    struct fixture *f = *state;
    struct tlsdir *d = tlsdir_create("run", &files);

    assert_non_null(d);
    f->opt.tls_dir = tlsdir_path(d);
    serve(f, "revoked", NULL);
    f->link = link_at(&f->opt);
    eventually(state_of(f->link) == LINK_PARKED);
    link_destroy(f->link);
    f->link = NULL;
    tlsdir_destroy(d);
}

static const struct tlsdir_files no_crl = {
    .ca = "ours/cert.pem", .cert = "client/cert.pem", .key = "client/key.pem"};

/* A parked connection to a server that is revoked when it is parked. */
static struct tlsdir *
park_then_revoke(struct fixture *f)
{
    struct tlsdir *d = tlsdir_create("run", &no_crl);
    char crl[128], link[256];

    assert_non_null(d);
    f->opt.tls_dir = tlsdir_path(d);
    serve(f, "revoked", NULL);
    f->link = link_at(&f->opt);
    eventually(status_of(f->link).would_serve);
    snprintf(crl, sizeof crl, "%s/crl.pem", work);
    snprintf(link, sizeof link, "%s/ca-crl.pem", tlsdir_path(d));
    assert_int_equal(symlink(crl, link), 0);
    return d;
}

static void
test_link_tls_revoked_while_parked_is_let_go(void **state)
{
    struct fixture *f = *state;
    struct tlsdir *d;

    /* nbdkit itself ends the connection after 32 options */
    f->opt.standby_interval_ms = PATIENCE_MS / 20;
    d = park_then_revoke(f);
    assert_int_equal(f->failures.of[LINK_FAIL_FILES], 0);
    eventually(strstr(status_of(f->link).error, "certificate verification"));
    assert_false(status_of(f->link).would_serve);
    /* that the list changed was no failed attempt, but the next one is */
    assert_true(failed_only_as(f, LINK_FAIL_CERTIFICATE));
    link_destroy(f->link);
    f->link = NULL;
    tlsdir_destroy(d);
}

static void
test_link_tls_revoked_while_parked_is_not_asked_to_serve(void **state)
{
    struct fixture *f = *state;
    struct tlsdir *d;

    f->opt.standby_interval_ms = PATIENCE_MS;
    d = park_then_revoke(f);
    assert_int_equal(link_go(f->link, "disk", clock_ms() + PATIENCE_MS),
                     -EBUSY);
    link_destroy(f->link);
    f->link = NULL;
    tlsdir_destroy(d);
}

static void
test_link_tls_server_without_tls_is_refused(void **state)
{
    const char *const argv[] = {"--tls=off", "memory", "1M", NULL};
    struct fixture *f = *state;

    f->pid = nbdkit_start(f->listen_fd, argv);
    f->link = link_at(&f->opt);
    eventually(strstr(status_of(f->link).error, "TLS"));
    assert_int_equal(state_of(f->link), LINK_CONNECTING);
    assert_true(failed_only_as(f, LINK_FAIL_REFUSED));
}

static void
missing_file_is_refused(struct fixture *f, const char *name,
                        const char *certificates)
{
    char away[64], text[64];

    /* libnbd alone would trust anybody, or forget the CRL */
    snprintf(away, sizeof away, "%s.away", name);
    assert_int_equal(rename(name, away), 0);
    serve(f, certificates, NULL);
    f->link = link_at(&f->opt);
    snprintf(text, sizeof text, ".pem: No such file or directory");
    eventually(strstr(status_of(f->link).error, text));
    assert_int_equal(state_of(f->link), LINK_CONNECTING);
    assert_true(failed_only_as(f, LINK_FAIL_FILES));
    assert_int_equal(rename(away, name), 0);
}

static void
test_link_tls_missing_ca_trusts_nobody(void **state)
{
    struct fixture *f = *state;

    missing_file_is_refused(f, "ours/cert.pem", "stranger");
    /* and once it is back, the stranger is still one */
    eventually(strstr(status_of(f->link).error, "certificate verification"));
}

static void
test_link_tls_missing_crl_trusts_nobody(void **state)
{
    struct fixture *f = *state;

    missing_file_is_refused(f, "crl.pem", "good");
    eventually(state_of(f->link) == LINK_PARKED);
}

static void
test_link_tls_missing_key_is_said(void **state)
{
    struct fixture *f = *state;

    missing_file_is_refused(f, "client/key.pem", "good");
    eventually(state_of(f->link) == LINK_PARKED);
}

static void
test_link_tls_client_that_the_server_rejects_never_parks(void **state)
{
    static const struct tlsdir_files files = {.ca = "ours/cert.pem",
                                              .cert = "stranger/cert.pem",
                                              .key = "stranger/key.pem"};
    struct fixture *f = *state;
    struct tlsdir *d = tlsdir_create("run", &files);

    f->opt.tls_dir = tlsdir_path(d);
    serve(f, "good", NULL);
    f->link = link_at(&f->opt);
    eventually(status_of(f->link).error[0]);
    assert_int_equal(state_of(f->link), LINK_CONNECTING);
    assert_true(failed_only_as(f, LINK_FAIL_REFUSED));
    link_destroy(f->link);
    f->link = NULL;
    tlsdir_destroy(d);
}

static void
test_link_tls_server_that_closes_amid_tls_is_tried_again(void **state)
{
    struct fixture *f = *state;
    struct peer *p = peer_create();

    p->on_connect = PEER_CLOSES;
    peer_start(p);
    f->opt.port = p->port;
    f->link = link_at(&f->opt);
    eventually(p->connections >= 3);
    assert_int_equal(state_of(f->link), LINK_CONNECTING);
    assert_string_not_equal(status_of(f->link).error, "");
    eventually(f->failures.of[LINK_FAIL_REFUSED] >= 3);
    assert_true(failed_only_as(f, LINK_FAIL_REFUSED));
    link_destroy(f->link);
    f->link = NULL;
    peer_stop(p);
}

/* ---- a server that is stopped or killed ---- */

/* Until all of its threads stand still. */
static void
freeze(const struct fixture *f)
{
    int status;

    assert_int_equal(kill(f->pid, SIGSTOP), 0);
    assert_int_equal(waitpid(f->pid, &status, WUNTRACED), f->pid);
    assert_true(WIFSTOPPED(status));
}

static void
test_link_tls_stopped_server_go_ends_at_deadline(void **state)
{
    struct fixture *f = *state;

    f->opt.standby_interval_ms = PATIENCE_MS;
    serve(f, "good", NULL);
    f->link = link_at(&f->opt);
    eventually(status_of(f->link).would_serve);
    freeze(f);
    assert_int_equal(link_go(f->link, "disk", clock_ms() + 300), -ETIMEDOUT);
    assert_int_equal(state_of(f->link), LINK_DEAD);
}

static void
test_link_tls_stopped_server_info_reconnects(void **state)
{
    struct fixture *f = *state;

    f->opt.link_timeout_ms = 1000;
    serve(f, "good", NULL);
    f->link = link_at(&f->opt);
    eventually(status_of(f->link).would_serve);
    freeze(f);
    eventually(strstr(status_of(f->link).error, "NBD_OPT_INFO"));
    assert_int_equal(state_of(f->link), LINK_CONNECTING);
    kill(f->pid, SIGCONT);
    eventually(status_of(f->link).would_serve);
}

#define JOBS 16

static void
start_slow_jobs(struct fixture *f, struct job *j)
{
    static const char *const slow[] = {"rdelay=60", "wdelay=60", NULL};

    serve(f, "good", slow);
    f->link = live_link(&f->opt);
    for (int i = 0; i < JOBS; i++)
        job_start(&j[i], f->link, i % 2 ? LINK_WRITE : LINK_READ,
                  (uint64_t)i << 20, 65536);
    eventually(link_oldest_ms(f->link));
}

static void
test_link_tls_killed_server_ends_commands(void **state)
{
    struct fixture *f = *state;
    struct job j[JOBS];

    start_slow_jobs(f, j);
    kill(f->pid, SIGKILL);
    for (int i = 0; i < JOBS; i++) {
        job_end(&j[i]);
        assert_int_equal(j[i].result, -ENOTCONN);
    }
    eventually(state_of(f->link) == LINK_DEAD);
    assert_string_not_equal(status_of(f->link).error, "");
}

static void
test_link_tls_stopped_server_break_ends_commands(void **state)
{
    struct fixture *f = *state;
    struct job j[JOBS];

    start_slow_jobs(f, j);
    freeze(f);
    link_break(f->link);
    for (int i = 0; i < JOBS; i++) {
        job_end(&j[i]);
        assert_int_equal(j[i].result, -ENOTCONN);
    }
    eventually(state_of(f->link) == LINK_DEAD);
}

static void
test_link_tls_stopped_server_destroy_is_quick(void **state)
{
    struct fixture *f = *state;
    uint64_t start_ms;

    serve(f, "good", NULL);
    f->link = live_link(&f->opt);
    freeze(f);
    start_ms = clock_ms();
    link_destroy(f->link);
    f->link = NULL;
    assert_true(clock_ms() - start_ms <= (getenv("VALGRIND") ? 5000 : 500));
}

/* ---- many threads, every byte looked at ---- */

#define WORKERS 16
#define ROUNDS  (getenv("VALGRIND") ? 20 : 200)

struct worker {
    pthread_t thread;
    struct link *link;
    unsigned number;
    int rounds;
    char verdict[128]; /* "" good */
};

static void
pattern(unsigned char *buf, size_t n, unsigned seed)
{
    for (size_t i = 0; i < n; i++)
        buf[i] = (unsigned char)((seed = seed * 1664525u + 1013904223u) >> 24);
}

/* Each worker owns one of 16 stripes, and writes a pattern of its own at
 * lengths that cross TLS records. */
static void *
work_and_verify(void *opaque)
{
    struct worker *w = opaque;
    unsigned char *out = malloc(1 << 20), *in = malloc(1 << 20);
    struct link_command c = {.offset = (uint64_t)w->number << 20};
    bool sent;
    int r;

    for (int i = 0; i < w->rounds && w->verdict[0] == '\0'; i++) {
        c.count = (uint64_t)512 << (i * 7 + (int)w->number) % 9;
        pattern(out, c.count, w->number * 1000 + (unsigned)i);
        c.op = LINK_WRITE;
        c.data = out;
        r = link_run(w->link, &c, &sent);
        c.op = LINK_READ;
        c.data = in;
        if (r == 0)
            r = link_run(w->link, &c, &sent);
        if (r != 0)
            snprintf(w->verdict, sizeof w->verdict, "error %d", r);
        else if (memcmp(in, out, c.count) != 0)
            snprintf(w->verdict, sizeof w->verdict, "round %d: other data", i);
    }
    free(out);
    free(in);
    return NULL;
}

static void
test_link_tls_many_threads_read_what_they_wrote(void **state)
{
    struct fixture *f = *state;
    struct worker w[WORKERS];

    serve(f, "good", NULL);
    f->link = live_link(&f->opt);
    for (unsigned i = 0; i < WORKERS; i++) {
        w[i] = (struct worker){.link = f->link, .number = i, .rounds = ROUNDS};
        assert_int_equal(
            pthread_create(&w[i].thread, NULL, work_and_verify, &w[i]), 0);
    }
    for (unsigned i = 0; i < WORKERS; i++)
        pthread_join(w[i].thread, NULL);
    for (unsigned i = 0; i < WORKERS; i++)
        assert_string_equal(w[i].verdict, "");
    assert_int_equal(link_oldest_ms(f->link), 0);
    assert_int_equal(state_of(f->link), LINK_LIVE);
}

static void
test_link_tls_extents_of_a_real_server(void **state)
{
    struct fixture *f = *state;
    struct link_extent e[8];
    struct link_command c = {.op = LINK_WRITE,
                             .offset = 1 << 20,
                             .count = 65536,
                             .data = calloc(1, 65536),
                             .extents = e,
                             .max_extents = 8};
    bool sent;

    serve(f, "good", NULL);
    f->link = live_link(&f->opt);
    memset(c.data, 1, 65536);
    assert_int_equal(link_run(f->link, &c, &sent), 0);
    c.op = LINK_EXTENTS;
    c.offset = 0;
    c.count = 4 << 20;
    assert_int_equal(link_run(f->link, &c, &sent), 0);
    assert_int_equal(c.n_extents, 3);
    assert_int_equal(e[0].flags, 3); /* hole, zero */
    assert_int_equal(e[0].count, 1 << 20);
    assert_int_equal(e[1].flags, 0);
    free(c.data);
}

int
main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        CASE(test_link_tls_good_server_is_trusted),
        CASE(test_link_tls_certificate_for_another_address_is_refused),
        CASE(test_link_tls_foreign_ca_is_refused),
        CASE(test_link_tls_expired_certificate_is_refused),
        CASE(test_link_tls_revoked_certificate_is_refused),
        CASE(test_link_tls_without_crl_nothing_is_revoked),
        CASE(test_link_tls_revoked_while_parked_is_let_go),
        CASE(test_link_tls_revoked_while_parked_is_not_asked_to_serve),
        CASE(test_link_tls_server_without_tls_is_refused),
        CASE(test_link_tls_missing_ca_trusts_nobody),
        CASE(test_link_tls_missing_crl_trusts_nobody),
        CASE(test_link_tls_missing_key_is_said),
        CASE(test_link_tls_client_that_the_server_rejects_never_parks),
        CASE(test_link_tls_server_that_closes_amid_tls_is_tried_again),
        CASE(test_link_tls_stopped_server_go_ends_at_deadline),
        CASE(test_link_tls_stopped_server_info_reconnects),
        CASE(test_link_tls_killed_server_ends_commands),
        CASE(test_link_tls_stopped_server_break_ends_commands),
        CASE(test_link_tls_stopped_server_destroy_is_quick),
        CASE(test_link_tls_many_threads_read_what_they_wrote),
        CASE(test_link_tls_extents_of_a_real_server),
    };

    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
