/* SPDX-License-Identifier: BSD-3-Clause */
/* One HTTP request to a Unix socket: curl and jq where each of them takes a
 * second to start.
 *
 *   ask SOCKET POST PATH JSON
 *   ask SOCKET GET PATH [FIELD...]
 *
 * Prints the body of the answer, or the fields of its JSON, each on a line: a
 * FIELD is names with dots between them, such as lun_status.paths.*.state; a
 * number is one element of an array and * is all of them, with blanks between.
 * What is not there is "null".  Fails unless the status is 200. */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <jansson.h>

#define ANSWER_S 5 /* to wait for an answer, as the lab does with curl */

static int
connect_to(const char *path)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    struct timeval limit = {.tv_sec = ANSWER_S};
    int fd;

    if (strlen(path) >= sizeof to.sun_path) {
        errno = ENAMETOOLONG;
        return -1;
    }
    strcpy(to.sun_path, path);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    if (connect(fd, (struct sockaddr *)&to, sizeof to) == 0)
        return fd;
    close(fd);
    return -1;
}

/* HTTP/1.0: the answer ends with the connection and comes in one piece. */
static int
send_request(int fd, const char *method, const char *path, const char *json)
{
    return dprintf(fd,
                   "%s %s HTTP/1.0\r\nHost: localhost\r\n"
                   "Content-Type: application/json\r\n"
                   "Content-Length: %zu\r\n\r\n%s",
                   method, path, strlen(json), json) < 0
               ? -1
               : 0;
}

/* returns: all of it, with a NUL; NULL and errno */
static char *
read_answer(int fd)
{
    size_t len = 0, room = 0;
    char *text = NULL;

    for (;;) {
        ssize_t n;

        if (room - len < 4096) {
            char *more = realloc(text, room += 65536);

            if (!more)
                break;
            text = more;
        }
        n = read(fd, text + len, room - len - 1);
        if (n < 0)
            break;
        text[len += (size_t)n] = '\0';
        if (n == 0)
            return text;
    }
    free(text);
    return NULL;
}

static void
print_scalar(const json_t *v)
{
    char *text;

    if (json_is_string(v)) {
        fputs(json_string_value(v), stdout);
        return;
    }
    text = json_dumps(v, JSON_COMPACT | JSON_ENCODE_ANY);
    fputs(text ? text : "null", stdout);
    free(text);
}

/* The field of v that path names; an array's elements recurse. */
static void
print_field(const json_t *v, const char *path)
{
    size_t len = strcspn(path, ".");
    const char *rest = path[len] ? path + len + 1 : path + len;

    if (!*path) {
        print_scalar(v);
    } else if (json_is_array(v) && strncmp(path, "*", len) == 0) {
        for (size_t i = 0; i < json_array_size(v); i++) {
            if (i > 0)
                putchar(' ');
            print_field(json_array_get(v, i), rest);
        }
    } else if (json_is_array(v)) {
        print_field(json_array_get(v, strtoul(path, NULL, 10)), rest);
    } else {
        print_field(json_object_getn(v, path, len), rest);
    }
}

static int
print_fields(const char *body, char *const *paths)
{
    json_error_t error;
    json_t *root = json_loads(body, 0, &error);

    if (!root) {
        fprintf(stderr, "ask: that is no JSON: %s\n", error.text);
        return 1;
    }
    for (; *paths; paths++) {
        print_field(root, *paths);
        putchar('\n');
    }
    json_decref(root);
    return 0;
}

/* fields: NULL-terminated; none: the whole body.  returns: the exit status */
static int
print_answer(const char *text, char *const *fields)
{
    const char *body = strstr(text, "\r\n\r\n");
    int status = 0;

    if (sscanf(text, "HTTP/1.%*d %d", &status) != 1 || !body) {
        fprintf(stderr, "ask: that is no HTTP: %.60s\n", text);
        return 1;
    }
    if (status == 200 && *fields)
        return print_fields(body + 4, fields);
    fputs(body + 4, stdout);
    if (status == 200)
        return 0;
    fprintf(stderr, "ask: status %d\n", status);
    return 1;
}

int
main(int argc, char **argv)
{
    bool post = argc == 5 && strcmp(argv[2], "POST") == 0;
    char *text = NULL;
    int fd, ret;

    if (argc < 4 || (!post && strcmp(argv[2], "GET") != 0)) {
        fprintf(stderr, "usage: ask SOCKET POST PATH JSON\n"
                        "       ask SOCKET GET PATH [FIELD...]\n");
        return 2;
    }
    fd = connect_to(argv[1]);
    if (fd >= 0 && send_request(fd, argv[2], argv[3], post ? argv[4] : "") == 0)
        text = read_answer(fd);
    if (!text) {
        fprintf(stderr, "ask: %s: %s\n", argv[1], strerror(errno));
        return 1;
    }
    ret = print_answer(text, argv + (post ? argc : 4));
    free(text);
    return ret;
}
