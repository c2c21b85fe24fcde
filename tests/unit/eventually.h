/* SPDX-License-Identifier: BSD-3-Clause */
/* Waiting in a test for what another thread or process does. */
#ifndef DETOUR_TESTS_EVENTUALLY_H
#define DETOUR_TESTS_EVENTUALLY_H

#include <unistd.h>

#include "common/clock.h"

/* For everything that must happen sooner or later: generous, since the tests
 * also run under valgrind and on slow machines.  A test may have its own. */
#ifndef PATIENCE_MS
#define PATIENCE_MS 30000
#endif

/* Poll a condition until it holds; fail the test when it never does. */
#define eventually(condition)                                                  \
    do {                                                                       \
        uint64_t until_ = clock_ms() + PATIENCE_MS;                            \
        while (!(condition)) {                                                 \
            if (clock_ms() > until_)                                           \
                fail_msg("never came true: %s", #condition);                   \
            usleep(1000);                                                      \
        }                                                                      \
    } while (0)

#endif
