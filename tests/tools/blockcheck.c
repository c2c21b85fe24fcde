/* SPDX-License-Identifier: BSD-3-Clause */
/* blockcheck: a load for NBD servers that decides by history whether all that
 * it saw is possible.  This file reads options and gives the verdict; the rules
 * are in tests/blockcheck/ruling.h.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/blockcheck/ruling.h"
#include "tests/blockcheck/load.h"
#include "tests/blockcheck/summary.h"

#define MAX_FILES  64
#define MAX_PAUSES 4096
#define LATE_NS    UINT64_C(10000000) /* less is no pause of the machine */
#define TICK_MS    5
#define WHY        256 /* bytes of a reason */

static struct {
    struct load load;
    uint64_t time_ns, max_stall_ns, max_errors;
    const char *save, *stop_file;
    const char *judged[MAX_FILES];
    size_t njudged;
    size_t story;
    bool verify_only;

    struct trace trace; /* of this run, and what was loaded */
    struct load_result result[LOAD_THREADS + 2];
    size_t nresults;
    struct summary_pause pauses[MAX_PAUSES];
    size_t npauses;
} b;

static volatile sig_atomic_t signalled;

static _Noreturn void
die(const char *what, const char *why)
{
    printf("blockcheck: FAILED: %s%s%s\n", what, *why ? ": " : "", why);
    exit(2);
}

/* ---- options
 * ----------------------------------------------------------------- */

static const char usage[] =
    "usage: blockcheck [OPTION]... URI\n"
    "       blockcheck --judge FILE...\n"
    "Loads an NBD server, then decides whether what it answered is possible.\n"
    "Everything in the range is overwritten.\n"
    "\n"
    "  --range OFFSET+SIZE   the part of the export that is ours (all of it);\n"
    "                        k, m and g may follow a number\n"
    "  --time SECONDS        end after that time (10; 0: never); --duration\n"
    "  --requests N          end after so many requests (0: no limit)\n"
    "  --stop-file FILE      end when the file exists; so do SIGTERM, SIGINT\n"
    "  --threads N           connections, a thread each (4, at most 64)\n"
    "  --depth N             requests under way on each (16, at most 256)\n"
    "  --rate N              requests each second at most (0: no limit)\n"
    "  --seed N              of what is done; one seed, one choice (1)\n"
    "  --unit BYTES          what the LUN writes whole or not at all (its\n"
    "                        smallest block, at least 512)\n"
    "  --reconnect SECONDS   survive lost connections: try for so long (0: a\n"
    "                        loss is a failure)\n"
    "  --patience SECONDS    wait so long for the last answers (60)\n"
    "  --max-stall MS        a longer stall is a failure (0: none is)\n"
    "  --max-errors N        more errors are a failure (any number is "
    "allowed)\n"
    "  --history FILE        save requests and answers\n"
    "  --judge FILE          judge saved ones too; several hosts' files of "
    "one\n"
    "                        LUN together, when the hosts are one machine's\n"
    "                        (they share CLOCK_MONOTONIC); --replay\n"
    "  --verify-only         write nothing: read the range, or what --judge's\n"
    "                        files cover, and judge that\n"
    "  --story LINES         of a fault's story (40)\n"
    "  --help\n"
    "\n"
    "Prints errors, a histogram of latencies, the longest stall (the longest\n"
    "time without a success while something was wanted), and for each fault\n"
    "the block's story.  The last line is one of\n"
    "  blockcheck: ok, N requests, N errors, longest stall N ms\n"
    "  blockcheck: FAILED: REASON\n"
    "exit status: 0 ok; 1 failed; 2 could not be run\n";

enum {
    OPT_FIRST = 256,
    OPT_STORY
};

static uint64_t
number(const char *text, char until, const char **end)
{
    char *after;
    unsigned shift = 0;
    uint64_t n;

    errno = 0;
    n = strtoull(text, &after, 0);
    if (after == text || *text == '-' || errno != 0)
        die("bad number", text);
    switch (*after) {
    case 'g':
    case 'G':
        shift += 10; /* fall through */
    case 'm':
    case 'M':
        shift += 10; /* fall through */
    case 'k':
    case 'K':
        shift += 10;
        after++;
    }
    if (*after != until || n > (uint64_t)INT64_MAX >> shift)
        die("bad number", text);
    if (end)
        *end = after + 1;
    return n << shift;
}

static uint64_t
at_most(const char *text, uint64_t most)
{
    uint64_t n = number(text, '\0', NULL);

    if (n > most)
        die("too large", text);
    return n;
}

static uint64_t
seconds(const char *text)
{
    char *end;
    double s = strtod(text, &end);

    if (end == text || *end != '\0' || !(s >= 0 && s < 1e8))
        die("bad time", text);
    return (uint64_t)(s * 1e9);
}

static void
add_file(const char *name)
{
    if (b.njudged == MAX_FILES)
        die("too many files", name);
    b.judged[b.njudged++] = name;
}

static void
one_option(int c)
{
    struct load *l = &b.load;
    const char *rest;

    switch (c) {
    case 'R':
        l->offset = number(optarg, '+', &rest);
        l->size = number(rest, '\0', NULL);
        break;
    case 'T':
        b.time_ns = seconds(optarg);
        break;
    case 'n':
        l->most = number(optarg, '\0', NULL);
        break;
    case 'f':
        b.stop_file = optarg;
        break;
    case 't':
        l->threads = (unsigned)at_most(optarg, LOAD_THREADS);
        break;
    case 'd':
        l->depth = (unsigned)at_most(optarg, LOAD_DEPTH);
        break;
    case 'r':
        l->rate = (unsigned)at_most(optarg, 10000000);
        break;
    case 's':
        l->seed = number(optarg, '\0', NULL);
        break;
    case 'u':
        l->unit = (uint32_t)at_most(optarg, 65536);
        break;
    case 'c':
        l->reconnect_ns = seconds(optarg);
        break;
    case 'p':
        l->patience_ns = seconds(optarg);
        break;
    case 'm':
        b.max_stall_ns = at_most(optarg, INT32_MAX) * 1000000;
        break;
    case 'e':
        b.max_errors = number(optarg, '\0', NULL);
        break;
    case 'H':
        b.save = optarg;
        break;
    case 'j':
        add_file(optarg);
        break;
    case 'v':
        b.verify_only = true;
        break;
    case OPT_STORY:
        b.story = at_most(optarg, 1000000);
        break;
    case 'h':
        fputs(usage, stdout);
        exit(0);
    default:
        exit(2);
    }
}

static void
read_options(int argc, char **argv)
{
    static const struct option options[] = {
        {"range", required_argument, NULL, 'R'},
        {"time", required_argument, NULL, 'T'},
        {"duration", required_argument, NULL, 'T'},
        {"requests", required_argument, NULL, 'n'},
        {"stop-file", required_argument, NULL, 'f'},
        {"threads", required_argument, NULL, 't'},
        {"depth", required_argument, NULL, 'd'},
        {"rate", required_argument, NULL, 'r'},
        {"seed", required_argument, NULL, 's'},
        {"unit", required_argument, NULL, 'u'},
        {"reconnect", required_argument, NULL, 'c'},
        {"patience", required_argument, NULL, 'p'},
        {"max-stall", required_argument, NULL, 'm'},
        {"max-errors", required_argument, NULL, 'e'},
        {"history", required_argument, NULL, 'H'},
        {"judge", required_argument, NULL, 'j'},
        {"replay", required_argument, NULL, 'j'},
        {"verify-only", no_argument, NULL, 'v'},
        {"story", required_argument, NULL, OPT_STORY},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    int c;

    b.load.threads = 4, b.load.depth = 16, b.load.seed = 1;
    b.load.patience_ns = seconds("60");
    b.time_ns = seconds("10");
    b.max_errors = UINT64_MAX;
    b.story = 40;
    while ((c = getopt_long(argc, argv, "", options, NULL)) != -1)
        one_option(c);
    if (b.load.threads == 0 || b.load.depth == 0)
        die("threads and depth must be above 0", "");
    if (b.njudged > 0 && !b.verify_only)
        while (optind < argc)
            add_file(argv[optind++]);
    else if (optind + 1 == argc)
        b.load.uri = argv[optind];
    else
        die("one URI is needed", "see --help");
}

/* ---- the run
 * ----------------------------------------------------------------- */

static void
on_signal(int sig)
{
    (void)sig;
    signalled = 1;
}

static void
learn_export(void)
{
    struct load *l = &b.load;
    uint64_t wait_ns = l->reconnect_ns ? l->reconnect_ns : seconds("10");
    char why[160];
    struct nbd_handle *nbd =
        conn_open(l->uri, conn_now_ns() + wait_ns, why, sizeof why);

    if (!nbd)
        die("cannot connect", why);
    if (conn_ask(nbd, &l->can) < 0)
        die("cannot use the export", l->uri);
    conn_part(nbd);
    nbd_close(nbd);
    if (l->unit == 0)
        l->unit = b.trace.unit ? b.trace.unit : l->can.unit;
    if (l->unit % l->can.unit != 0 || (b.trace.unit && l->unit != b.trace.unit))
        die("the unit does not fit the export or the history", "");
    if (!l->can.multi && l->threads > 1 && !b.verify_only) {
        puts("note: the server does not promise that connections see one "
             "another's writes; one thread");
        l->threads = 1;
    }
}

/* The range of the options, or of the histories, or all. */
static void
settle_range(void)
{
    struct load *l = &b.load;
    uint64_t begin = UINT64_MAX, end = 0;

    if (l->size == 0 && b.trace.nrequests > 0) {
        for (size_t i = 0; i < b.trace.nrequests; i++) {
            const struct request *r = &b.trace.requests[i];

            if (r->count > 0 && r->offset < begin)
                begin = r->offset;
            if (r->count > 0 && r->offset + r->count > end)
                end = r->offset + r->count;
        }
        l->offset = begin < end ? begin : 0;
        l->size = begin < end ? end - begin : 0;
    }
    if (l->size == 0 && l->offset < l->can.size)
        l->size = (l->can.size - l->offset) / l->unit * l->unit;
    if (l->offset % l->unit || l->size % l->unit || l->size == 0 ||
        l->offset > l->can.size || l->size > l->can.size - l->offset)
        die("the range is not one of whole units of the export", "");
}

static void
new_writer(void)
{
    uint64_t x = stamp_mix(conn_now_ns() ^ (uint64_t)getpid() << 40);

    b.load.writer = (uint32_t)(x >> 33) + 1; /* neither 0 nor strange */
    b.trace.unit = b.load.unit;
}

/* How late a nap of its own comes tells when the machine stood still. */
static void
tick(void)
{
    uint64_t before = conn_now_ns(), now;
    const uint64_t tick_ns = TICK_MS * UINT64_C(1000000);

    conn_nap(TICK_MS);
    now = conn_now_ns();
    if (now - before > tick_ns + LATE_NS && b.npauses < MAX_PAUSES)
        b.pauses[b.npauses++] = (struct summary_pause){before + tick_ns, now};
}

static bool
is_over(uint64_t end_ns, unsigned ticks)
{
    if (signalled || (b.time_ns && conn_now_ns() > end_ns))
        return true;
    return b.stop_file && ticks % 10 == 0 && access(b.stop_file, F_OK) == 0;
}

static void
scan(void)
{
    if (load_scan(&b.load, &b.trace, &b.result[b.nresults]) < 0)
        die("no memory", "");
    b.nresults++;
}

static void
run(void)
{
    struct trace own[LOAD_THREADS];
    struct worker *workers[LOAD_THREADS];
    struct load *l = &b.load;
    uint64_t end_ns = conn_now_ns() + b.time_ns;

    for (unsigned i = 0; i < l->threads; i++) {
        trace_init(&own[i], l->unit);
        workers[i] = worker_start(l, i + 1, &own[i]);
        if (!workers[i])
            die("cannot start a thread", strerror(errno));
    }
    for (unsigned ticks = 0; atomic_load(&l->busy) > 0; ticks++) {
        if (is_over(end_ns, ticks))
            atomic_store(&l->stop, true);
        tick();
    }
    for (unsigned i = 0; i < l->threads; i++) {
        worker_join(workers[i], &b.result[b.nresults++]);
        if (trace_merge(&b.trace, &own[i]) < 0)
            die("no memory", "");
        trace_fini(&own[i]);
    }
}

/* ---- files
 * ------------------------------------------------------------------- */

static void
load_files(void)
{
    char where[64];
    unsigned line;
    FILE *from;
    int r;

    for (size_t i = 0; i < b.njudged; i++) {
        from = fopen(b.judged[i], "re");
        if (!from)
            die(b.judged[i], strerror(errno));
        r = trace_load(&b.trace, from, &line);
        fclose(from);
        snprintf(where, sizeof where, "line %u: %s", line, strerror(-r));
        if (r < 0)
            die(b.judged[i], where);
    }
}

static void
save_file(void)
{
    FILE *to = fopen(b.save, "we");
    int r = to ? trace_save(&b.trace, to) : -errno;

    if (to && fclose(to) != 0 && r == 0)
        r = -errno;
    if (r < 0)
        die(b.save, strerror(-r));
}

/* ---- the verdict
 * --------------------------------------------------------------- */

static void
judge(struct ruling *v)
{
    uint64_t begin_ns = conn_now_ns();
    int r = ruling_make(&b.trace, v);

    if (r < 0)
        die("cannot judge", strerror(-r));
    printf("judged    %" PRIu64 " units, %" PRIu64 " reads of a unit (%" PRIu64
           " left out), %zu requests in %" PRIu64 " ms\n",
           v->units, v->reads, v->left_out, b.trace.nrequests,
           (conn_now_ns() - begin_ns) / 1000000);
    for (int i = 0; i < FAULT_KINDS; i++)
        if (v->of_kind[i] > 0)
            printf("faults    %s: %" PRIu64 " units\n", fault_names[i],
                   v->of_kind[i]);
    for (size_t i = 0; i < v->ntold; i++)
        ruling_story(&b.trace, &v->faults[i], b.story, stdout);
}

/* What the connections did not manage; "" when they did. */
static void
broken(char why[WHY])
{
    why[0] = '\0';
    for (size_t i = 0; i < b.nresults && why[0] == '\0'; i++) {
        const struct load_result *r = &b.result[i];

        if (r->lost[0] != '\0')
            snprintf(why, WHY, "%s", r->lost);
        else if (r->unread > 0)
            snprintf(why, WHY, "%" PRIu64 " bytes could not be read",
                     r->unread);
    }
}

/* The first reason to fail, the worst first; "" when there is none. */
static void
find_failure(const struct ruling *v, const struct summary *s,
             uint64_t machine_ns, char why[WHY])
{
    broken(why);
    if (v->nfaults > 0)
        snprintf(why, WHY,
                 "%" PRIu64
                 " units hold what they cannot (first: %s, at %" PRIu64 ")",
                 v->nfaults, fault_names[v->faults[0].kind],
                 v->faults[0].offset);
    else if (s->unanswered > 0 && b.load.uri && !b.verify_only)
        snprintf(why, WHY, "%" PRIu64 " requests were never answered",
                 s->unanswered);
    else if (why[0] != '\0')
        return;
    else if (s->errors > b.max_errors)
        snprintf(why, WHY, "%" PRIu64 " errors", s->errors);
    else if (b.max_stall_ns && s->stall_ns - machine_ns > b.max_stall_ns)
        snprintf(why, WHY, "a stall of %" PRIu64 " ms", s->stall_ns / 1000000);
}

static int
verdict(void)
{
    char why[WHY];
    struct ruling v;
    struct summary s;
    uint64_t machine_ns, again = 0;

    if (summary_make(&b.trace, &s) < 0)
        die("no memory", "");
    machine_ns = summary_machine_ns(&s, b.pauses, b.npauses);
    summary_print(&s, stdout);
    for (size_t i = 0; i < b.nresults; i++)
        again += b.result[i].reconnects;
    if (again > 0)
        printf("connected again %" PRIu64 " times\n", again);
    if (machine_ns > 0)
        printf("machine   stood still for %.3f ms of the longest stall\n",
               (double)machine_ns / 1e6);
    judge(&v);
    find_failure(&v, &s, machine_ns, why);
    if (why[0] != '\0') {
        printf("blockcheck: FAILED: %s\n", why);
        return 1;
    }
    printf("blockcheck: ok, %" PRIu64 " requests, %" PRIu64
           " errors, longest stall %" PRIu64 " ms\n",
           s.requests, s.errors, s.stall_ns / 1000000);
    return 0;
}

static void
load_and_look(void)
{
    char why[WHY];

    learn_export();
    settle_range();
    new_writer();
    scan();
    broken(why);
    if (why[0] != '\0' || b.verify_only)
        return;
    printf("blockcheck: ready, %" PRIu64 "+%" PRIu64
           ", unit %u, %u threads of depth %u, writer %x\n",
           b.load.offset, b.load.size, b.load.unit, b.load.threads,
           b.load.depth, b.load.writer);
    run();
    scan();
}

int
main(int argc, char **argv)
{
    struct sigaction action = {.sa_handler = on_signal};
    int rc;

    read_options(argc, argv);
    setvbuf(stdout, NULL, _IOLBF, 0);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    load_files();
    if (b.load.uri)
        load_and_look();
    if (b.save)
        save_file();
    rc = verdict();
    trace_fini(&b.trace);
    return rc;
}
