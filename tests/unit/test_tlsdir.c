/* SPDX-License-Identifier: BSD-3-Clause */
/* The directory of certificates: what it holds, who may see it, and that it
 * goes away, also when its process was killed. */
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/tlsdir.h"

static const struct tlsdir_files files = {
    .ca = "/etc/d/ca.pem",
    .cert = "/etc/d/cert.pem",
    .key = "/etc/d/key.pem",
    .crl = "/etc/d/crl.pem",
};

static int
setup(void **state)
{
    char *dir = strdup("/tmp/test_tlsdir.XXXXXX");

    assert_non_null(mkdtemp(dir));
    *state = dir;
    return 0;
}

static int
teardown(void **state)
{
    int r = rmdir(*state); /* fails if anything was left */

    free(*state);
    return r;
}

static void
leads_to(const struct tlsdir *d, const char *name, const char *target)
{
    char path[PATH_MAX], found[PATH_MAX] = "";

    snprintf(path, sizeof path, "%s/%s", tlsdir_path(d), name);
    assert_true(readlink(path, found, sizeof found - 1) > 0);
    assert_string_equal(found, target);
}

static unsigned
entries(const char *dir)
{
    DIR *d = opendir(dir);
    unsigned n = 0;

    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));)
        n += e->d_name[0] != '.';
    closedir(d);
    return n;
}

static void
test_tlsdir_links_under_the_names_libnbd_wants(void **state)
{
    struct tlsdir *d = tlsdir_create(*state, &files);

    assert_non_null(d);
    leads_to(d, "ca-cert.pem", files.ca);
    leads_to(d, "client-cert.pem", files.cert);
    leads_to(d, "client-key.pem", files.key);
    leads_to(d, "ca-crl.pem", files.crl);
    tlsdir_destroy(d);
}

static void
test_tlsdir_without_crl_has_none(void **state)
{
    struct tlsdir_files f = files;
    struct tlsdir *d;

    f.crl = NULL;
    d = tlsdir_create(*state, &f);
    assert_non_null(d);
    assert_int_equal(entries(tlsdir_path(d)), 3);
    tlsdir_destroy(d);
}

static void
test_tlsdir_is_for_its_owner_only(void **state)
{
    struct tlsdir *d = tlsdir_create(*state, &files);
    struct stat st;

    assert_non_null(d);
    assert_int_equal(stat(tlsdir_path(d), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0700);
    tlsdir_destroy(d);
}

static void
test_tlsdir_relative_file_becomes_absolute(void **state)
{
    struct tlsdir_files f = files;
    char *cwd = getcwd(NULL, 0), *wanted;
    struct tlsdir *d;

    f.ca = "ca.pem";
    assert_true(asprintf(&wanted, "%s/ca.pem", cwd) > 0);
    d = tlsdir_create(*state, &f);
    assert_non_null(d);
    leads_to(d, "ca-cert.pem", wanted);
    tlsdir_destroy(d);
    free(wanted);
    free(cwd);
}

static void
test_tlsdir_two_do_not_meet_and_leave_nothing(void **state)
{
    struct tlsdir *a = tlsdir_create(*state, &files);
    struct tlsdir *b = tlsdir_create(*state, &files);

    assert_non_null(a);
    assert_non_null(b);
    assert_string_not_equal(tlsdir_path(a), tlsdir_path(b));
    assert_int_equal(entries(*state), 2); /* b did not clean a away */
    leads_to(a, "ca-cert.pem", files.ca);
    tlsdir_destroy(a);
    tlsdir_destroy(b);
    assert_int_equal(entries(*state), 0);
}

static void
test_tlsdir_of_a_killed_process_is_removed(void **state)
{
    struct tlsdir *d;
    int status;
    pid_t pid = fork();

    assert_int_not_equal(pid, -1);
    if (pid == 0) {
        if (tlsdir_create(*state, &files))
            kill(getpid(), SIGKILL);
        _exit(1);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(entries(*state), 1);
    d = tlsdir_create(*state, &files);
    assert_non_null(d);
    assert_int_equal(entries(*state), 1); /* ours */
    tlsdir_destroy(d);
}

static void
test_tlsdir_foreign_content_stays(void **state)
{
    char dir[PATH_MAX], file[PATH_MAX + 16];
    FILE *f;

    snprintf(dir, sizeof dir, "%s/tls.mine", (char *)*state);
    snprintf(file, sizeof file, "%s/notes", dir);
    assert_int_equal(mkdir(dir, 0700), 0);
    f = fopen(file, "we");
    assert_non_null(f);
    fclose(f);
    tlsdir_destroy(tlsdir_create(*state, &files));
    assert_int_equal(access(file, F_OK), 0);
    assert_int_equal(unlink(file), 0);
    assert_int_equal(rmdir(dir), 0);
}

static void
test_tlsdir_without_rundir_fails(void **state)
{
    (void)state;
    assert_null(tlsdir_create("/nowhere/at/all", &files));
    assert_int_equal(errno, ENOENT);
    tlsdir_destroy(NULL);
}

int
main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        CASE(test_tlsdir_links_under_the_names_libnbd_wants),
        CASE(test_tlsdir_without_crl_has_none),
        CASE(test_tlsdir_is_for_its_owner_only),
        CASE(test_tlsdir_relative_file_becomes_absolute),
        CASE(test_tlsdir_two_do_not_meet_and_leave_nothing),
        CASE(test_tlsdir_of_a_killed_process_is_removed),
        CASE(test_tlsdir_foreign_content_stays),
        CASE(test_tlsdir_without_rundir_fails),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
