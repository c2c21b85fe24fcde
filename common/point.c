/* SPDX-License-Identifier: BSD-3-Clause */
/* Dies where a test wants it to; part of test-only builds (RULES=1) alone. */
#include "common/point.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"

static const char *const names[POINT_COUNT] = {
    [POINT_LOST] = "lost",
    [POINT_LEFT] = "left",
    [POINT_SAVE] = "save",
    [POINT_SAVED] = "saved",
    [POINT_GO_SENT] = "go-sent",
    [POINT_GO_GRANTED] = "go-granted",
    [POINT_OPENED] = "opened",
    [POINT_FORGET] = "forget",
    [POINT_FORGOTTEN] = "forgotten",
    [POINT_LINK_WRITTEN] = "link-written",
    [POINT_GO_RECEIVED] = "go-received",
    [POINT_OLDER_TOLD] = "older-told",
    [POINT_OLDER_GONE] = "older-gone",
    [POINT_FENCED] = "fenced",
    [POINT_LET_IN] = "let-in",
    [POINT_GO_ANSWERED] = "go-answered",
    [POINT_WRITE_SENT] = "write-sent",
    [POINT_WRITE_DONE] = "write-done",
    [POINT_ANSWERED] = "answered",
    [POINT_ASIDE] = "aside",
    [POINT_HOME_LEFT] = "home-left",
    [POINT_HOME_REGISTERED] = "home-registered",
    [POINT_HOME_FENCED] = "home-fenced",
    [POINT_HOME_SAVED] = "home-saved",
    [POINT_HOME_OPENED] = "home-opened",
    [POINT_REGISTER] = "register",
    [POINT_REGISTERED] = "registered",
    [POINT_PREEMPT] = "preempt",
    [POINT_PREEMPTED] = "preempted",
    [POINT_RESET] = "reset",
    [POINT_WAS_RESET] = "was-reset",
};

static pthread_once_t once = PTHREAD_ONCE_INIT;
static enum point chosen = POINT_COUNT; /* fixed after once; COUNT: none */
static atomic_ulong passes_left;

static void
choose(const char *name, unsigned long pass)
{
    for (int i = 0; i < POINT_COUNT; i++) {
        if (strcmp(names[i], name) != 0)
            continue;
        atomic_store(&passes_left, pass);
        chosen = (enum point)i;
        return;
    }
    log_error("test build: DETOUR_DIE_AT: no such point: %s", name);
    abort();
}

static void
read_environment(void)
{
    const char *value = getenv("DETOUR_DIE_AT");
    char *name = value ? strdup(value) : NULL;
    char *pass = name ? strchr(name, ':') : NULL;

    if (pass)
        *pass++ = '\0';
    if (name && *name)
        choose(name, pass ? strtoul(pass, NULL, 10) : 1);
    free(name);
}

void
point_pass(enum point p)
{
    pthread_once(&once, read_environment);
    if (p != chosen || atomic_fetch_sub(&passes_left, 1) != 1)
        return;
    log_warning("test build: dies at %s", names[p]);
    kill(getpid(), SIGKILL);
    for (;;)
        pause();
}
