/* SPDX-License-Identifier: BSD-3-Clause */
/* Tests of the parser of iscsi:// device strings. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/iscsi_url.h"

#define IQN "iqn.2024-01.org.example:disk0"

static void
refused(const char *text, const char *reason)
{
    struct iscsi_url_parts parts;
    char err[256] = "";

    assert_int_equal(iscsi_url_parse(text, &parts, err, sizeof(err)), -EINVAL);
    if (!strstr(err, reason))
        fail_msg("'%s': \"%s\" does not say \"%s\"", text, err, reason);
}

static void
accepted(const char *text, struct iscsi_url_parts *parts)
{
    char err[256] = "";

    if (iscsi_url_parse(text, parts, err, sizeof(err)) != 0)
        fail_msg("'%s': %s", text, err);
}

static void
test_url_one_portal_gets_the_default_port(void **state)
{
    struct iscsi_url_parts parts;

    (void)state;
    accepted("iscsi://10.0.0.1/" IQN "/1", &parts);
    assert_int_equal(parts.nportals, 1);
    assert_string_equal(parts.portals[0], "10.0.0.1:3260");
    assert_string_equal(parts.target, IQN);
    assert_int_equal(parts.lun, 1);
}

static void
test_url_many_portals_of_both_families(void **state)
{
    struct iscsi_url_parts parts;

    (void)state;
    accepted("iscsi://10.0.0.1:860,[fd00::1],[FD00:0::2]:99/" IQN "/16383",
             &parts);
    assert_int_equal(parts.nportals, 3);
    assert_string_equal(parts.portals[0], "10.0.0.1:860");
    assert_string_equal(parts.portals[1], "[fd00::1]:3260");
    assert_string_equal(parts.portals[2], "[fd00::2]:99");
    assert_int_equal(parts.lun, 16383);
}

static void
test_url_eui_and_naa_names(void **state)
{
    struct iscsi_url_parts parts;

    (void)state;
    accepted("iscsi://10.0.0.1/eui.02004567A425678D/0", &parts);
    assert_string_equal(parts.target, "eui.02004567A425678D");
    accepted("iscsi://10.0.0.1/naa.52004567BA64678D/0", &parts);
}

static void
test_url_bad_portals_are_refused(void **state)
{
    (void)state;
    refused("iscsi:///" IQN "/1", "portal ''");
    refused("iscsi://10.0.0.1,/" IQN "/1", "portal ''");
    refused("iscsi://san.example.org/" IQN "/1", "IP address");
    refused("iscsi://10.0.0.1:/" IQN "/1", "10.0.0.1:");
    refused("iscsi://10.0.0.1:0/" IQN "/1", "10.0.0.1:0");
    refused("iscsi://10.0.0.1:65536/" IQN "/1", "65536");
    refused("iscsi://10.0.0.1:32x/" IQN "/1", "32x");
    refused("iscsi://10.0.0.1:-1/" IQN "/1", "-1");
    refused("iscsi://fd00::1/" IQN "/1", "fd00::1");
    refused("iscsi://[fd00::1/" IQN "/1", "[fd00::1");
    refused("iscsi://[fd00::1]x/" IQN "/1", "[fd00::1]x");
    refused("iscsi://[10.0.0.1]/" IQN "/1", "[10.0.0.1]");
    refused("iscsi://user%pw@10.0.0.1/" IQN "/1", "IP address");
}

static void
test_url_doubled_portal_is_refused_in_any_spelling(void **state)
{
    (void)state;
    refused("iscsi://10.0.0.1,10.0.0.1:3260/" IQN "/1", "named twice");
    refused("iscsi://[fd00::1],[fd00:0:0::1]/" IQN "/1", "named twice");
}

static void
test_url_too_many_portals_are_refused(void **state)
{
    char text[1024] = "iscsi://10.0.0.1";
    size_t len = strlen(text);

    (void)state;
    for (int i = 2; i <= ISCSI_URL_PORTALS_MAX + 1; i++)
        len +=
            (size_t)snprintf(text + len, sizeof(text) - len, ",10.0.0.%d", i);
    snprintf(text + len, sizeof(text) - len, "/" IQN "/1");
    refused(text, "more than");
}

static void
test_url_bad_targets_are_refused(void **state)
{
    char text[600] = "iscsi://10.0.0.1/iqn.";

    (void)state;
    refused("iscsi://10.0.0.1//1", "does not begin with iqn.");
    refused("iscsi://10.0.0.1/disk0/1", "does not begin with iqn.");
    refused("iscsi://10.0.0.1/iqn./1", "does not begin with iqn.");
    refused("iscsi://10.0.0.1/iqn.a b/1", "white space");
    refused("iscsi://10.0.0.1/" IQN "/x/1", "more than three");
    memset(text + strlen(text), 'a', 300);
    strcpy(text + 321, "/1");
    refused(text, "longer than 223");
}

static void
test_url_bad_luns_are_refused(void **state)
{
    (void)state;
    refused("iscsi://10.0.0.1/" IQN "/", "LUN ''");
    refused("iscsi://10.0.0.1/" IQN "/-1", "LUN '-1'");
    refused("iscsi://10.0.0.1/" IQN "/1x", "LUN '1x'");
    refused("iscsi://10.0.0.1/" IQN "/16384", "LUN '16384'");
    refused("iscsi://10.0.0.1/" IQN "/99999999999999999999", "LUN '999");
    refused("iscsi://10.0.0.1/" IQN, "is not iscsi://");
    refused("iscsi://10.0.0.1", "is not iscsi://");
    refused("/dev/sda", "does not begin with iscsi://");
    refused("", "does not begin with iscsi://");
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_url_one_portal_gets_the_default_port),
        cmocka_unit_test(test_url_many_portals_of_both_families),
        cmocka_unit_test(test_url_eui_and_naa_names),
        cmocka_unit_test(test_url_bad_portals_are_refused),
        cmocka_unit_test(test_url_doubled_portal_is_refused_in_any_spelling),
        cmocka_unit_test(test_url_too_many_portals_are_refused),
        cmocka_unit_test(test_url_bad_targets_are_refused),
        cmocka_unit_test(test_url_bad_luns_are_refused),
    };

    return cmocka_run_group_tests_name("iscsi_url", tests, NULL, NULL);
}
