/* SPDX-License-Identifier: BSD-3-Clause */
/* The status page and the metrics as text: escaping, gaps, silence. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "health/metrics.h"
#include "health/page.h"
#include "tests/unit/health_picture.h"

#define EVIL "<b>&\\\"\\n\\u0007\\u202e\\u2069x"

static char *
render_page(void)
{
    json_t *s = documents_status(&picture, &now);
    json_t *c = documents_cluster(&picture, s, &now);
    json_t *h = documents_history(&picture, &now);
    char *text = NULL;
    size_t len;
    FILE *f = open_memstream(&text, &len);

    page_write(f, c, h);
    fclose(f);
    json_decref(h);
    json_decref(c);
    json_decref(s);
    return text;
}

static char *
render_metrics(void)
{
    json_t *s = documents_status(&picture, &now);
    char *text = NULL;
    size_t len;
    FILE *f = open_memstream(&text, &len);

    metrics_write(f, s);
    fclose(f);
    json_decref(s);
    return text;
}

static size_t
count(const char *text, const char *what)
{
    size_t n = 0;

    for (const char *p = text; (p = strstr(p, what)); p += strlen(what))
        n++;
    return n;
}

static void
expect(const char *text, const char *what, size_t times)
{
    if (count(text, what) != times)
        fail_msg("%zu times, expected %zu: %s\nin %s", count(text, what), times,
                 what, text);
}

/* ---- the page ---------------------------------------------------------- */

static void
test_page_texts_are_escaped(void **state)
{
    char *page;

    (void)state;
    heard("plugin-vm1-a", 0,
          "{'process': 'plugin', 'lun': '" EVIL "', 'route':"
          " {'phase': '" EVIL "', 'reason': '" EVIL "', 'peer': '" EVIL "'},"
          " 'peers': [{'host': '" EVIL "', 'state': '" EVIL "'}],"
          " 'lun_status': {'paths': [{'name': '" EVIL "'}]}}");
    page = render_page();
    expect(page, "<b>", 0);
    expect(page, "\xe2\x80\xae", 0);
    expect(page, "\x07", 0);
    assert_true(count(page, "&lt;b&gt;&amp;&quot;????x") >= 6);
    free(page);
}

static void
test_page_says_nothing_of_a_silent_process(void **state)
{
    char *page;

    (void)state;
    picture_heard(heard("plugin-vm1-a", 0, PLUGIN), NULL, "it hangs", NOW_MS);
    page = render_page();
    expect(page, "sdb", 0);
    expect(page, "● local", 0);
    assert_true(count(page, "? unknown") >= 2);
    assert_true(count(page, "it hangs") >= 2);
    free(page);
}

static void
test_page_curves_have_gaps(void **state)
{
    struct picture_source *s = heard("plugin-vm1-a", 0, PLUGIN);
    char *page;

    (void)state;
    memset(&s->stall_ms, 0, sizeof s->stall_ms);
    history_add(&s->stall_ms, 1, NOW_MS - 5 * HISTORY_STEP_MS);
    history_add(&s->stall_ms, 1500, NOW_MS - 2 * HISTORY_STEP_MS);
    history_add(&s->stall_ms, 12, NOW_MS);
    page = render_page();
    expect(page, "longest wait: 12 ms, at most 1.5 s in 10 min", 1);
    /* three of the one, one of the other */
    expect(page, "<polyline", 4);
    free(page);
}

static void
test_page_policy_names_hashes(void **state)
{
    char *policy = page_policy();

    (void)state;
    assert_non_null(policy);
    expect(policy, "'sha256-", 2);
    expect(policy, "unsafe", 0);
    free(policy);
}

/* ---- metrics ----------------------------------------------------------- */

#define HISTOGRAM                                                              \
    "process=\"plugin-vm1-a\",lun=\"vm1\",client=\"a\",route=\"local\","       \
    "operation=\"read\""

static void
test_metrics_samples(void **state)
{
    static const char *const lines[] = {
        "\ndetour_process_up{process=\"plugin-vm1-a\"} 1\n",
        "\ndetour_route_state{process=\"plugin-vm1-a\",lun=\"vm1\","
        "client=\"a\",state=\"local\"} 1\n",
        "\ndetour_route_changes_total{process=\"plugin-vm1-a\",lun=\"vm1\","
        "client=\"a\",state=\"local\",cause=\"home\"} 3\n",
        "\ndetour_redirected_seconds_total{process=\"plugin-vm1-a\","
        "lun=\"vm1\",client=\"a\"} 12.5\n",
        "\ndetour_request_duration_seconds_bucket{" HISTOGRAM
        ",le=\"0.0001\"} 1\n"
        "detour_request_duration_seconds_bucket{" HISTOGRAM ",le=\"0.001\"} 2\n"
        "detour_request_duration_seconds_bucket{" HISTOGRAM ",le=\"+Inf\"} 3\n"
        "detour_request_duration_seconds_sum{" HISTOGRAM "} 0.0013\n"
        "detour_request_duration_seconds_count{" HISTOGRAM "} 3\n",
        "\ndetour_request_bytes_total{" HISTOGRAM "} 1024\n",
        "\ndetour_paths_good{process=\"plugin-vm1-a\",lun=\"vm1\","
        "client=\"a\"} 1\n",
        "\ndetour_paths_known{process=\"proxy\",lun=\"vm1\"} 2\n",
        "\ndetour_map_queues{process=\"proxy\",lun=\"vm1\"} 0\n",
        "\ndetour_lun_size_bytes{process=\"proxy\",lun=\"vm1\"} "
        "1099511627776\n",
        "\ndetour_proxy_tls_errors_total{process=\"proxy\"} 6\n",
        "\ndetour_proxy_fences_total{process=\"proxy\",lun=\"vm1\","
        "result=\"done\"} 2\n"
        "detour_proxy_fences_total{process=\"proxy\",lun=\"vm1\","
        "result=\"failed\"} 1\n",
        "\ndetour_proxy_inflight_requests{process=\"proxy\",lun=\"vm1\","
        "peer=\"h2\",peer_client=\"a\"} 100\n",
        "\ndetour_proxy_inflight_requests{process=\"proxy\",lun=\"vm1\","
        "peer=\"h2\",peer_client=\"b\"} 1\n",
        "\ndetour_proxy_requests_total{process=\"proxy\",lun=\"vm1\","
        "peer=\"h2\",peer_client=\"a\"} 9999999999\n",
        "\ndetour_proxy_requests_total{process=\"proxy\",lun=\"vm1\","
        "peer=\"h2\",peer_client=\"\"} 5\n",
        "\ndetour_link_round_trip_seconds{process=\"plugin-vm1-a\","
        "lun=\"vm1\",client=\"a\",peer=\"h2\",address=\"10.0.0.2\"} "
        "0.00075\n",
        "\ndetour_probe_duration_seconds{process=\"proxy\",lun=\"vm1\"} "
        "0.0003\n",
    };
    char *text;

    (void)state;
    heard("plugin-vm1-a", 0, PLUGIN);
    heard("proxy", 0, PROXY);
    text = render_metrics();
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++)
        expect(text, lines[i], 1);
    free(text);
}

static void
test_metrics_of_a_silent_process_are_a_gap(void **state)
{
    char *text;

    (void)state;
    picture_heard(heard("plugin-vm1-a", 1500, PLUGIN), NULL, "hangs", NOW_MS);
    text = render_metrics();
    expect(text, "process=\"plugin-vm1-a\"", 2);
    expect(text, "\ndetour_process_up{process=\"plugin-vm1-a\"} 0\n", 1);
    expect(text,
           "\ndetour_process_last_answer_age_seconds"
           "{process=\"plugin-vm1-a\"} 1.5\n",
           1);
    free(text);
}

static void
test_metrics_labels_are_escaped(void **state)
{
    char *text;

    (void)state;
    heard("plugin-vm1-a", 0,
          "{'process': 'plugin', 'lun': 'a\\\\b\\\"c\\nd', 'client': 'x',"
          " 'route': " LOCAL "}");
    text = render_metrics();
    expect(text, "lun=\"a\\\\b\\\"c\\nd\",client=\"x\"} 12.5\n", 1);
    free(text);
}

static void
test_metrics_what_is_not_known_is_not_told(void **state)
{
    char *text;

    (void)state;
    heard("plugin-vm1-a", 0,
          "{'process': 'plugin', 'lun': 'vm1', 'lun_status':"
          " {'size': null, 'probe': {'us': null, 'age_s': 'old'}}}");
    text = render_metrics();
    expect(text, "\ndetour_lun_size_bytes{", 0);
    expect(text, "\ndetour_probe_duration_seconds{", 0);
    expect(text, "\ndetour_probe_age_seconds{", 0);
    expect(text, "\ndetour_queue_requests{", 0);
    free(text);
}

#define TEST(f)                                                                \
    cmocka_unit_test_setup_teardown(f, picture_setup, picture_teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_page_texts_are_escaped),
        TEST(test_page_says_nothing_of_a_silent_process),
        TEST(test_page_curves_have_gaps),
        TEST(test_page_policy_names_hashes),
        TEST(test_metrics_samples),
        TEST(test_metrics_of_a_silent_process_are_a_gap),
        TEST(test_metrics_labels_are_escaped),
        TEST(test_metrics_what_is_not_known_is_not_told),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
