/* SPDX-License-Identifier: BSD-3-Clause */
/* A process' control socket with made-up answers, for detourctl's and
 * detour-health's tests.
 *
 *   fake-control SOCKET DIR [GROUP]
 *
 * GET /status is answered with DIR/status.json.  A POST is written to DIR/log
 * as "PATH BODY" and answered with 200, or with 409 and the text of
 * DIR/refuse if there is such a file.  GROUP may read its state.  Says "ready" when it listens and ends
 * on SIGTERM. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "health/control.h"

static const char *dir;

static void
log_post(const char *path, const json_t *body)
{
    char *text = body ? json_dumps(body, JSON_SORT_KEYS) : NULL;
    char name[4096];
    FILE *f;

    snprintf(name, sizeof name, "%s/log", dir);
    f = fopen(name, "a");
    if (f) {
        fprintf(f, "%s %s\n", path, text ? text : "-");
        fclose(f);
    }
    free(text);
}

static unsigned
handle(void *opaque, const char *method, const char *path, const json_t *body,
       json_t **reply)
{
    char name[4096], text[256];
    FILE *f;
    size_t n;

    (void)opaque;
    if (strcmp(method, "GET") == 0) {
        snprintf(name, sizeof name, "%s/status.json", dir);
        *reply = json_load_file(name, 0, NULL);
        return *reply ? 200 : 404;
    }
    log_post(path, body);
    snprintf(name, sizeof name, "%s/refuse", dir);
    f = fopen(name, "r");
    if (!f)
        return 200;
    n = fread(text, 1, sizeof text - 1, f);
    text[n] = '\0';
    fclose(f);
    *reply = json_pack("{s:s}", "error", text);
    return 409;
}

int
main(int argc, char **argv)
{
    struct control *c;
    sigset_t set;
    int sig;

    if (argc != 3 && argc != 4)
        return 2;
    dir = argv[2];
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigprocmask(SIG_BLOCK, &set, NULL);
    c = control_start(argv[1], handle, NULL);
    if (!c) {
        perror(argv[1]);
        return 1;
    }
    control_let_read(c, argv[3]);
    puts("ready");
    fflush(stdout);
    sigwait(&set, &sig);
    control_stop(c);
    return 0;
}
