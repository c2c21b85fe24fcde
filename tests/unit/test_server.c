/* SPDX-License-Identifier: BSD-3-Clause */
/* Who may begin a handshake: strangers cannot keep the hosts out. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "proxy/conn.h"
#include "proxy/server.h"

static char *addresses_a[] = {"10.0.0.1", "fd00:0::1"};
static char *addresses_b[] = {"10.0.0.2"};
static struct config_host hosts[] = {
    {.name = "a", .number = 1, .addresses = addresses_a, .naddresses = 2},
    {.name = "b", .number = 2, .addresses = addresses_b, .naddresses = 1},
};
static const struct config config = {
    .hosts = hosts, .nhosts = 2, .self = &hosts[0]};

static int
setup(void **state)
{
    struct server *s = calloc(1, sizeof *s);

    if (!s)
        return -1;
    s->config = &config;
    s->max_conns = SERVER_CONNS_MAX;
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->gone, NULL);
    *state = s;
    return 0;
}

static int
teardown(void **state)
{
    struct server *s = *state;

    while (s->conns) {
        struct conn *c = s->conns;

        server_remove(s, c);
        free(c);
    }
    pthread_cond_destroy(&s->gone);
    pthread_mutex_destroy(&s->lock);
    free(s);
    return 0;
}

/* Why a connection from ip is refused; NULL: it was let in. */
static const char *
come(struct server *s, const char *ip)
{
    struct conn *c = calloc(1, sizeof *c);
    const char *why = NULL;

    assert_non_null(c);
    snprintf(c->ip, sizeof c->ip, "%s", ip);
    if (server_add(s, c, &why) == 0)
        return NULL;
    assert_non_null(why);
    free(c);
    return why;
}

/* From n addresses, until one of them is refused; returns how many came. */
static unsigned
crowd(struct server *s, unsigned n, const char **why)
{
    char ip[64];
    unsigned i = 0;

    do
        snprintf(ip, sizeof ip, "10.9.0.%u", i % n);
    while (!(*why = come(s, ip)) && ++i < SERVER_CONNS_MAX);
    return i;
}

static void
test_server_strangers_leave_room_for_hosts(void **state)
{
    struct server *s = *state;
    const char *why;

    assert_int_equal(crowd(s, 3, &why), SERVER_STRANGERS_MAX / 2);
    assert_non_null(strstr(why, "of no configured host"));
    for (unsigned i = 0; i < SERVER_STRANGERS_MAX / 2; i++)
        assert_null(come(s, i % 2 ? "10.0.0.2" : "fd00::1"));
    assert_string_equal(come(s, "10.0.0.2"),
                        "too many connections in their handshake");
}

static void
test_server_one_address_has_its_limit(void **state)
{
    struct server *s = *state;

    for (unsigned i = 0; i < SERVER_STRANGERS_ADDRESS_MAX; i++)
        assert_null(come(s, "10.0.0.2"));
    assert_non_null(strstr(come(s, "10.0.0.2"), "from this address"));
    assert_null(come(s, "10.0.0.1"));
}

static void
test_server_few_descriptors_are_not_for_strangers_alone(void **state)
{
    struct server *s = *state;
    const char *why;

    s->max_conns = 32;
    assert_int_equal(crowd(s, 3, &why), 8);
    for (unsigned i = 0; i < 8; i++)
        assert_null(come(s, "10.0.0.2"));
    assert_non_null(come(s, "10.0.0.2"));
    /* Known by certificate they count no more. */
    for (struct conn *c = s->conns; c; c = c->next)
        if (c->from_host)
            c->peer = &hosts[1];
    assert_null(come(s, "10.0.0.2"));
    assert_non_null(come(s, "10.9.0.1"));
}

static void
test_server_is_full_at_its_limit(void **state)
{
    struct server *s = *state;

    s->max_conns = 4;
    assert_null(come(s, "10.0.0.2"));
    assert_null(come(s, "10.0.0.1"));
    for (struct conn *c = s->conns; c; c = c->next)
        c->peer = &hosts[1];
    assert_null(come(s, "10.0.0.2"));
    assert_null(come(s, "10.0.0.1"));
    assert_string_equal(come(s, "10.0.0.2"), "too many connections");
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_server_strangers_leave_room_for_hosts),
        TEST(test_server_one_address_has_its_limit),
        TEST(test_server_few_descriptors_are_not_for_strangers_alone),
        TEST(test_server_is_full_at_its_limit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
