/* SPDX-License-Identifier: BSD-3-Clause */
/* Which rules a test has left out; part of test-only builds (RULES=1) alone. */
#include "common/rules.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"

static const char *const names[RULE_COUNT] = {
    [RULE_SUSPECT_SELF] = "suspect-self",
    [RULE_SUSPECT_PEER] = "suspect-peer",
    [RULE_FENCE] = "fence",
    [RULE_ABORT] = "abort",
    [RULE_OLDER] = "older",
    [RULE_WAIT] = "wait",
    [RULE_CLOSE] = "close",
    [RULE_ANSWER] = "answer",
    [RULE_PREDECESSOR] = "predecessor",
    [RULE_HOME_FENCE] = "home-fence",
    [RULE_DISK_SUSPECTS] = "disk-suspects",
    [RULE_DISK_GENERATION] = "disk-generation",
    [RULE_EVERY_KEY] = "every-key",
    [RULE_VANISHED] = "vanished",
    [RULE_GRAVES] = "graves",
};

static pthread_once_t once = PTHREAD_ONCE_INIT;
static bool left_out[RULE_COUNT]; /* fixed after once */

static void
leave_out(const char *name)
{
    for (int i = 0; i < RULE_COUNT; i++) {
        if (strcmp(names[i], name) != 0)
            continue;
        left_out[i] = true;
        log_warning("test build: rule %s is left out", name);
        return;
    }
    log_error("test build: DETOUR_LEAVE_OUT: no such rule: %s", name);
    abort();
}

static void
read_environment(void)
{
    const char *value = getenv("DETOUR_LEAVE_OUT");
    char *copy = value ? strdup(value) : NULL;
    char *rest = NULL;

    for (char *name = copy ? strtok_r(copy, ",", &rest) : NULL; name;
         name = strtok_r(NULL, ",", &rest))
        leave_out(name);
    free(copy);
}

bool
rule_kept(enum rule r)
{
    pthread_once(&once, read_environment);
    return !left_out[r];
}
