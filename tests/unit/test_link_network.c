/* SPDX-License-Identifier: BSD-3-Clause */
/* Links without TLS: how a network that is lost is noticed. */
#include <sched.h>
#include <sys/ioctl.h>

#include "common/link_impl.h"
#include "tests/unit/link_fixture.h"

static int
socket_option(int fd, int level, int name)
{
    int value = -1;
    socklen_t len = sizeof value;

    assert_int_equal(getsockopt(fd, level, name, &value, &len), 0);
    return value;
}

static void
test_link_socket_is_tuned(void **state)
{
    struct fixture *f = *state;
    int fd;

    f->opt.link_timeout_ms = 4321;
    f->link = live_link(&f->opt);
    fd = our_socket_to(f->peer->port);
    assert_int_not_equal(fd, -1);
    assert_int_equal(socket_option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT), 4321);
    assert_int_equal(socket_option(fd, IPPROTO_TCP, TCP_NODELAY), 1);
    assert_int_equal(socket_option(fd, SOL_SOCKET, SO_KEEPALIVE), 1);
    assert_int_equal(socket_option(fd, IPPROTO_TCP, TCP_KEEPIDLE), 1);
    assert_int_equal(socket_option(fd, IPPROTO_TCP, TCP_KEEPINTVL), 1);
}

/* Everything to the peer is dropped from now on; only in a network of our
 * own, which main made. */
static bool own_network;

static void
swallow(uint16_t port)
{
    char command[256];

    snprintf(command, sizeof command,
             "nft 'add table inet t; add chain inet t o {type filter hook "
             "output priority 0;}; flush chain inet t o; add rule inet t o "
             "tcp dport %u drop; add rule inet t o tcp sport %u drop'",
             port, port);
    assert_int_equal(system(command), 0);
}

static void
test_link_network_lost_ends_commands_after_link_timeout(void **state)
{
    struct fixture *f = *state;
    struct job j;
    uint64_t start_ms;

    if (!own_network)
        skip();
    f->opt.link_timeout_ms = 1000;
    f->link = live_link(&f->opt);
    swallow(f->peer->port);
    start_ms = clock_ms();
    job_start(&j, f->link, LINK_WRITE, 0, 4096);
    job_end(&j);
    assert_int_equal(j.result, -ENOTCONN);
    assert_true(j.sent);
    assert_true(clock_ms() - start_ms >= 900);
    assert_true(clock_ms() - start_ms < 4000);
    eventually(state_of(f->link) == LINK_DEAD);
    assert_string_equal(status_of(f->link).error, "Connection timed out");
}

static void
test_link_network_lost_idle_link_dies_of_keepalive(void **state)
{
    struct fixture *f = *state;

    if (!own_network)
        skip();
    f->opt.link_timeout_ms = 1000;
    f->link = live_link(&f->opt);
    swallow(f->peer->port);
    eventually(state_of(f->link) == LINK_DEAD);
    assert_string_equal(status_of(f->link).error, "Connection timed out");
}

static void
test_link_network_lost_destroy_is_quick(void **state)
{
    struct fixture *f = *state;
    if (!own_network)
        skip();
    f->link = live_link(&f->opt);
    swallow(f->peer->port);
    destroy_in_time(f);
    f->peer->on_connect = PEER_SILENT;
    f->link = link_at(&f->opt); /* its SYN is swallowed too */
    destroy_in_time(f);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        LINK_TEST(test_link_socket_is_tuned),
        LINK_TEST(test_link_network_lost_ends_commands_after_link_timeout),
        LINK_TEST(test_link_network_lost_idle_link_dies_of_keepalive),
        LINK_TEST(test_link_network_lost_destroy_is_quick),
    };

    own_network = enter_own_network();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
