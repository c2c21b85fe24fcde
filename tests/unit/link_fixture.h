/* SPDX-License-Identifier: BSD-3-Clause */
/* A link of each test's own, and the peer that it is to. */
#ifndef DETOUR_TESTS_LINK_FIXTURE_H
#define DETOUR_TESTS_LINK_FIXTURE_H

#include <sched.h>

#include "tests/unit/link_peer.h"

struct fixture {
    struct peer *peer;
    struct link_options opt;
    struct link *link;
    struct link_failures failures;
};

static inline int
setup_refusing(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);

    f->peer = peer_create();
    f->opt = options_for(f->peer->port);
    f->opt.failures = &f->failures;
    changes = 0;
    *state = f;
    return 0;
}

static inline int
setup(void **state)
{
    setup_refusing(state);
    peer_start(((struct fixture *)*state)->peer);
    return 0;
}

static inline int
teardown(void **state)
{
    struct fixture *f = *state;

    link_destroy(f->link);
    peer_stop(f->peer);
    free(f);
    return 0;
}

/* Our end of a connection to the peer; -1: there is none. */
static inline int
our_socket_to(uint16_t port)
{
    for (int fd = 3; fd < 1024; fd++) {
        struct sockaddr_in a;
        socklen_t len = sizeof a;

        if (getpeername(fd, (struct sockaddr *)&a, &len) == 0 &&
            a.sin_family == AF_INET && ntohs(a.sin_port) == port)
            return fd;
    }
    return -1;
}

static inline void
destroy_in_time(struct fixture *f)
{
    uint64_t start_ms = clock_ms();

    link_destroy(f->link);
    f->link = NULL;
    assert_true(clock_ms() - start_ms <= (getenv("VALGRIND") ? 5000 : 500));
}

/* A network of the program's own, where nobody else takes the peers' ports; can
 * it drop what goes to a port?  Before the first thread. */
static inline bool
enter_own_network(void)
{
    return unshare(CLONE_NEWNET) == 0 &&
           system("ip link set lo up && command -v nft >/dev/null") == 0;
}

#define LINK_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

#endif
