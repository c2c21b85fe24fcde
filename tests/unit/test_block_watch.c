/* SPDX-License-Identifier: BSD-3-Clause */
/* What the block backend knows of paths, and does about a map that queues,
 * while everybody it hears it from fails in his own way.
 *
 * The device is a file that is said to be map dm-3 with paths sdb and sdc, or
 * an NVMe namespace; sysfs is a folder; device mapper, the kernel's events and
 * multipathd are variables. */
#include "tests/unit/fake_multipathd.h"
#include "tests/unit/fake_sysfs.h"

#include <stdatomic.h>
#include <sys/sysmacros.h>

#include "lun/device.h"
#include "lun/dm.h"
#include "lun/uevent.h"

/* ---- device mapper ----------------------------------------------- */

static struct {
    pthread_mutex_t lock;
    pthread_cond_t moved;
    /* guarded by lock */
    struct dm_map map;
    int error;
    bool hangs;
    unsigned reads, orders, inside;
    dev_t dev; /* that was asked last */
} dm = {.lock = PTHREAD_MUTEX_INITIALIZER, .moved = PTHREAD_COND_INITIALIZER};

int __wrap_dm_read(dev_t dev, struct dm_map *m);
int __wrap_dm_fail_queued(dev_t dev);

static void
enter_locked(dev_t dev)
{
    dm.dev = dev;
    dm.inside++;
    while (dm.hangs)
        pthread_cond_wait(&dm.moved, &dm.lock);
    dm.inside--;
}

int
__wrap_dm_read(dev_t dev, struct dm_map *m)
{
    int err;

    pthread_mutex_lock(&dm.lock);
    dm.reads++;
    enter_locked(dev);
    *m = dm.map;
    err = dm.error;
    pthread_mutex_unlock(&dm.lock);
    return err;
}

int
__wrap_dm_fail_queued(dev_t dev)
{
    pthread_mutex_lock(&dm.lock);
    dm.orders++;
    enter_locked(dev);
    dm.map.queues = false;
    pthread_mutex_unlock(&dm.lock);
    return 0;
}

#define SET_DM(field, value)                                                   \
    do {                                                                       \
        pthread_mutex_lock(&dm.lock);                                          \
        dm.field = (value);                                                    \
        pthread_cond_broadcast(&dm.moved);                                     \
        pthread_mutex_unlock(&dm.lock);                                        \
    } while (0)

static unsigned
dm_count(const unsigned *field)
{
    unsigned n;

    pthread_mutex_lock(&dm.lock);
    n = *field;
    pthread_mutex_unlock(&dm.lock);
    return n;
}

static dev_t
dev_asked(void)
{
    dev_t dev;

    pthread_mutex_lock(&dm.lock);
    dev = dm.dev;
    pthread_mutex_unlock(&dm.lock);
    return dev;
}

/* ---- the device -------------------------------------------------- */

static enum {
    A_MAP,
    AN_NVME_HEAD,
    A_DISK,
} kind;
static atomic_bool gone, open_hangs;
static atomic_uint opens, looks;

struct device *__real_device_open(const char *path, bool readonly);
struct device *__wrap_device_open(const char *path, bool readonly);
int __wrap_device_refresh(struct device *d, const char *path, bool *grown);

struct device *
__wrap_device_open(const char *path, bool readonly)
{
    struct device *d;

    opens++;
    while (open_hangs)
        usleep(1000);
    if (gone) {
        errno = ENOENT;
        return NULL;
    }
    d = __real_device_open(path, readonly);
    if (!d)
        return NULL;
    d->file = false;
    d->multipath = kind == A_MAP;
    d->nvme = kind == AN_NVME_HEAD;
    d->dev = makedev(253, 3);
    strcpy(d->name, kind == A_MAP    ? "dm-3"
                    : kind == A_DISK ? "sdb"
                                     : "nvme0n1");
    return d;
}

int
__wrap_device_refresh(struct device *d, const char *path, bool *grown)
{
    (void)d;
    (void)path;
    *grown = false;
    looks++;
    return gone ? -ENODEV : 0;
}

/* ---- events ------------------------------------------------------ */

#define EVENTS_MAX 16

static struct {
    pthread_mutex_t lock;
    int fd; /* readable while there are some */
    /* guarded by lock */
    struct uevent events[EVENTS_MAX];
    size_t n;
    bool lost, refused;
} heard = {.lock = PTHREAD_MUTEX_INITIALIZER, .fd = -1};

struct uevents *__wrap_uevents_open(void);
void __wrap_uevents_close(struct uevents *u);
int __wrap_uevents_fd(struct uevents *u);
int __wrap_uevents_next(struct uevents *u, struct uevent *ev);

struct uevents *
__wrap_uevents_open(void)
{
    errno = EPERM;
    return heard.refused ? NULL : (struct uevents *)&heard;
}

void
__wrap_uevents_close(struct uevents *u)
{
    (void)u;
}

int
__wrap_uevents_fd(struct uevents *u)
{
    (void)u;
    return heard.fd;
}

int
__wrap_uevents_next(struct uevents *u, struct uevent *ev)
{
    eventfd_t value;
    int got = 0;

    (void)u;
    pthread_mutex_lock(&heard.lock);
    if (heard.lost) {
        heard.lost = false;
        got = -ENOBUFS;
    } else if (heard.n > 0) {
        *ev = heard.events[0];
        memmove(heard.events, heard.events + 1, --heard.n * sizeof *ev);
        got = 1;
    } else {
        eventfd_read(heard.fd, &value);
    }
    pthread_mutex_unlock(&heard.lock);
    return got;
}

static void
tell(enum uevent_kind what, const char *name, const char *path, int valid)
{
    struct uevent ev = {.kind = what, .valid_paths = valid};

    snprintf(ev.name, sizeof ev.name, "%s", name);
    snprintf(ev.path, sizeof ev.path, "%s", path);
    pthread_mutex_lock(&heard.lock);
    assert_true(heard.n < EVENTS_MAX);
    heard.events[heard.n++] = ev;
    pthread_mutex_unlock(&heard.lock);
    eventfd_write(heard.fd, 1);
}

static void
lose_events(void)
{
    pthread_mutex_lock(&heard.lock);
    heard.lost = true;
    pthread_mutex_unlock(&heard.lock);
    eventfd_write(heard.fd, 1);
}

/* ---- errors ------------------------------------------------------ */

static struct {
    pthread_mutex_t lock;
    /* guarded by lock */
    unsigned n;
    char last[512];
} errors = {.lock = PTHREAD_MUTEX_INITIALIZER};

void __wrap_log_error(const char *fmt, ...)
    __attribute__((format(printf, 1, 2)));

void
__wrap_log_error(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    pthread_mutex_lock(&errors.lock);
    errors.n++;
    vsnprintf(errors.last, sizeof errors.last, fmt, ap);
    pthread_mutex_unlock(&errors.lock);
    va_end(ap);
}

/* How many were logged; 0: none, or the last one has not this text in it. */
static unsigned
errors_of(const char *text)
{
    unsigned n;

    pthread_mutex_lock(&errors.lock);
    n = strstr(errors.last, text) ? errors.n : 0;
    pthread_mutex_unlock(&errors.lock);
    return n;
}

/* ---- the LUN ----------------------------------------------------- */

#define DAEMON_MAP                                                             \
    "{\"map\": {\"name\": \"vmstore\", \"queueing\": \"on\", "                 \
    "\"path_groups\": [{\"paths\": [{\"dev\": \"sdb\", \"chk_st\": \"ready\"," \
    " \"checker\": \"tur\", \"pri\": 50}]}]}}"

static struct lun *l;
static atomic_uint notified;

static void
notify(void *opaque)
{
    (void)opaque;
    notified++;
}

static struct lun *
open_lun(const char *device)
{
    struct lun_options opt = fixture_options(device);

    opt.notify = notify;
    opt.multipathd = fake_daemon.name;
    l = lun_create(&opt);
    assert_non_null(l);
    return l;
}

static void
start(void)
{
    open_lun(fixture_file("disk", 1 << 20));
    eventually(status_of(l).known);
}

/* A map that was read. */
static void
start_map(void)
{
    struct lun_map m;

    start();
    eventually(lun_get_map(l, &m) && m.read_ms > 0 &&
               status_of(l).paths_known == 2);
}

static int
setup(void **state)
{
    int err = fixture_setup(state);

    fake_sysfs_use();
    fake_sysfs_device("dm-3", "253:3");
    fake_sysfs_path("dm-3", "sdb", "8:16", "running");
    fake_sysfs_path("dm-3", "sdc", "8:32", "running");
    pthread_mutex_lock(&dm.lock);
    dm.map = (struct dm_map){
        .name = "vmstore",
        .npaths = 2,
        .paths = {{.dev = makedev(8, 16), .active = true, .group = 1},
                  {.dev = makedev(8, 32), .active = true, .group = 2}}};
    dm.reads = dm.orders = 0;
    dm.error = 0;
    dm.hangs = false;
    pthread_mutex_unlock(&dm.lock);
    gone = open_hangs = false;
    kind = A_MAP;
    notified = opens = looks = 0;
    errors.n = 0;
    errors.last[0] = '\0';
    heard.fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    heard.n = 0;
    heard.lost = heard.refused = false;
    fake_daemon_name();
    return err;
}

static int
setup_daemon(void **state)
{
    int err = setup(state);

    fake_daemon_start();
    fake_daemon_set(DAEMON_ANSWERS, DAEMON_MAP);
    return err;
}

static int
teardown(void **state)
{
    SET_DM(hangs, false);
    open_hangs = false;
    lun_destroy(l, soon());
    l = NULL;
    fake_daemon_stop();
    /* a thread that was left behind may be in there */
    eventually(dm_count(&dm.inside) == 0);
    close(heard.fd);
    return fixture_teardown(state);
}

static struct lun_path
path_of(const char *name)
{
    struct lun_path paths[LUN_PATH_MAX], none = {.name = ""};
    size_t n = lun_get_paths(l, paths, LUN_PATH_MAX);

    for (size_t i = 0; i < n; i++)
        if (strcmp(paths[i].name, name) == 0)
            return paths[i];
    return none;
}

static struct lun_map
map_now(void)
{
    struct lun_map m;

    lun_get_map(l, &m);
    return m;
}

/* Turn path sdc over in the map, with an event or without, and wait until
 * that is known. */
static void
turn_over(bool with_event)
{
    bool active = !dm.map.paths[1].active;

    SET_DM(map.paths[1].active, active);
    if (with_event)
        tell(active ? UEVENT_PATH_REINSTATED : UEVENT_PATH_FAILED, "dm-3",
             "8:32", active ? 2 : 1);
    eventually(path_of("sdc").state ==
               (active ? LUN_PATH_GOOD : LUN_PATH_FAILED));
}

/* By looking alone each of three takes a second after the one before. */
static void
assert_heard_at_once(void)
{
    uint64_t begun_ms;

    turn_over(true);
    begun_ms = clock_ms();
    for (int i = 0; i < 3; i++)
        turn_over(true);
    assert_true(clock_ms() - begun_ms < 2500);
}

/* ---- paths of a map ---------------------------------------------- */

static void
test_paths_are_told_with_what_is_known_of_them(void **state)
{
    (void)state;
    dm.map.paths[0].failures = 3;
    start_map();
    assert_int_equal(status_of(l).paths_good, 2);
    eventually(strstr(path_of("sdb").detail, "checker"));
    assert_string_equal(path_of("sdb").detail,
                        "group 1, failed 3 times, priority 50, tur checker: "
                        "ready");
    assert_string_equal(path_of("sdb").error, "");
    assert_string_equal(path_of("sdc").detail, "group 2");
    assert_string_equal(map_now().name, "vmstore");
    assert_string_equal(map_now().multipathd, "answers, queueing: on");
    assert_true(dev_asked() == makedev(253, 3));
}

static void
test_event_of_a_path_is_heard_at_once(void **state)
{
    (void)state;
    start_map();
    assert_heard_at_once();
}

static void
test_lost_event_is_made_up_for_by_looking(void **state)
{
    (void)state;
    start_map();
    turn_over(false);
    assert_string_equal(path_of("sdc").error, "failed in the map");
    turn_over(false);
    assert_string_equal(path_of("sdc").error, "");
}

static void
test_events_the_kernel_dropped_are_a_reason_to_look(void **state)
{
    uint64_t begun_ms;

    (void)state;
    start_map();
    turn_over(true);
    begun_ms = clock_ms();
    for (int i = 0; i < 3; i++) {
        bool active = !dm.map.paths[1].active;

        SET_DM(map.paths[1].active, active);
        lose_events();
        eventually(path_of("sdc").state ==
                   (active ? LUN_PATH_GOOD : LUN_PATH_FAILED));
    }
    assert_true(clock_ms() - begun_ms < 2500);
}

/* The last one to arrive says that both work; the map says none does. */
static void
test_events_in_the_wrong_order_change_nothing(void **state)
{
    unsigned reads;

    (void)state;
    start_map();
    SET_DM(map.paths[0].active, false);
    SET_DM(map.paths[1].active, false);
    tell(UEVENT_PATH_FAILED, "dm-3", "8:32", 0);
    tell(UEVENT_PATH_FAILED, "dm-3", "8:16", 1);
    tell(UEVENT_PATH_REINSTATED, "dm-3", "8:16", 2);
    eventually(status_of(l).paths_good == 0);
    reads = dm_count(&dm.reads);
    tell(UEVENT_PATH_REINSTATED, "dm-3", "8:32", 2);
    eventually(dm_count(&dm.reads) > reads + 1);
    assert_int_equal(status_of(l).paths_good, 0);
    assert_int_equal(status_of(l).paths_known, 2);
}

static void
test_no_path_in_the_map_is_told_though_disks_run(void **state)
{
    unsigned before;

    (void)state;
    start_map();
    before = notified;
    SET_DM(map.paths[0].active, false);
    SET_DM(map.paths[1].active, false);
    tell(UEVENT_PATH_FAILED, "dm-3", "8:32", 0);
    eventually(status_of(l).paths_good == 0);
    eventually(notified > before);
}

/* A path that is offline in sysfs; events tell nothing of that. */
static void
test_sysfs_speaks_against_a_path_too(void **state)
{
    uint64_t since_ms;

    (void)state;
    start_map();
    since_ms = path_of("sdb").since_ms;
    fake_sysfs_put("class/block/sdc/device/state", "transport-offline");
    eventually(path_of("sdc").state == LUN_PATH_FAILED);
    assert_string_equal(path_of("sdc").error, "state transport-offline");
    assert_true(path_of("sdc").since_ms >= since_ms);
    assert_int_equal(path_of("sdb").since_ms, since_ms);
    assert_int_equal(status_of(l).paths_good, 1);
}

static void
test_path_list_changes_under_us(void **state)
{
    (void)state;
    start_map();
    fake_sysfs_path("dm-3", "sdd", "8:48", "running");
    eventually(status_of(l).paths_known == 3);
    assert_string_equal(path_of("sdd").detail, ""); /* the map has no such */
    pthread_mutex_lock(&dm.lock);
    dm.map.paths[2] = (struct dm_path){.dev = makedev(8, 48), .group = 3};
    dm.map.npaths = 3;
    pthread_mutex_unlock(&dm.lock);
    tell(UEVENT_DEVICE, "dm-3", "", -1);
    eventually(path_of("sdd").state == LUN_PATH_FAILED);
    fake_sysfs_remove("class/block/dm-3/slaves/sdb");
    fake_sysfs_remove("dev/block/8:16");
    eventually(status_of(l).paths_known == 2);
    assert_string_equal(path_of("sdb").name, "");
    assert_int_equal(status_of(l).paths_good, 1);
}

/* The disk that has a name now is not the one the map knew by it. */
static void
test_path_that_takes_another_ones_name_is_looked_up_by_number(void **state)
{
    (void)state;
    dm.map.paths[1].active = false;
    start_map();
    eventually(path_of("sdc").state == LUN_PATH_FAILED);
    fake_sysfs_device("sdb", "8:32");
    fake_sysfs_device("sdc", "8:16");
    eventually(path_of("sdb").state == LUN_PATH_FAILED);
    eventually(path_of("sdc").state == LUN_PATH_GOOD);
}

static void
test_no_events_to_be_had_is_no_trouble(void **state)
{
    (void)state;
    heard.refused = true;
    start_map();
    turn_over(false);
}

static void
test_renamed_map_is_followed(void **state)
{
    (void)state;
    start_map();
    pthread_mutex_lock(&dm.lock);
    strcpy(dm.map.name, "renamed");
    pthread_mutex_unlock(&dm.lock);
    tell(UEVENT_DEVICE, "dm-3", "", -1);
    eventually(strcmp(map_now().name, "renamed") == 0);
    assert_int_equal(status_of(l).paths_good, 2);
}

static void
test_removed_device_is_noticed_by_its_event(void **state)
{
    struct lun_map m;
    uint64_t begun_ms;

    (void)state;
    start_map();
    for (unsigned before = looks; looks == before;)
        usleep(1000); /* the next look by itself is a second off */
    begun_ms = clock_ms();
    gone = true;
    tell(UEVENT_DEVICE, "dm-3", "", -1);
    eventually(status_of(l).paths_good == 0);
    assert_true(clock_ms() - begun_ms < 900);
    assert_int_equal(status_of(l).paths_known, 1);
    assert_false(lun_get_map(l, &m));
    gone = false;
    tell(UEVENT_DEVICE, "dm-3", "", -1);
    eventually(lun_get_map(l, &m) && status_of(l).paths_good == 2);
}

/* ---- those who hang ---------------------------------------------- */

static void
test_hanging_device_mapper_leaves_sysfs(void **state)
{
    uint64_t begun_ms;

    (void)state;
    dm.map.paths[1].active = false;
    start_map();
    SET_DM(hangs, true);
    fake_sysfs_put("class/block/sdb/device/state", "offline");
    eventually(path_of("sdb").state == LUN_PATH_FAILED);
    /* what the map said of sdc is forgotten in time */
    eventually(path_of("sdc").state == LUN_PATH_GOOD);
    begun_ms = clock_ms();
    for (int i = 0; i < 1000; i++)
        status_of(l);
    assert_true(clock_ms() - begun_ms < 1000);
    SET_DM(hangs, false);
    eventually(path_of("sdc").state == LUN_PATH_FAILED);
}

static void
test_hanging_device_mapper_does_not_keep_the_lun(void **state)
{
    uint64_t begun_ms;
    unsigned reads;

    (void)state;
    start_map();
    SET_DM(hangs, true);
    reads = dm_count(&dm.reads);
    eventually(dm_count(&dm.reads) > reads);
    begun_ms = clock_ms();
    assert_int_equal(lun_destroy(l, soon()), 0);
    assert_true(clock_ms() - begun_ms < 1500);
    l = NULL;
}

static void
test_absent_multipathd_is_told(void **state)
{
    (void)state;
    start_map();
    eventually(map_now().multipathd[0]);
    assert_string_equal(map_now().multipathd,
                        "does not answer: Connection refused");
    assert_heard_at_once();
}

static void
test_hanging_multipathd_keeps_nobody(void **state)
{
    (void)state;
    fake_daemon_set(DAEMON_HANGS, "");
    start_map();
    eventually(fake_daemon_count(&fake_daemon.shown) > 0);
    assert_heard_at_once();
    eventually(strcmp(map_now().multipathd,
                      "does not answer: Connection timed out") == 0);
}

static void
test_restarted_multipathd_is_asked_again(void **state)
{
    (void)state;
    fake_daemon_set(DAEMON_DIES, "");
    start_map();
    eventually(strcmp(map_now().multipathd,
                      "does not answer: Connection reset by peer") == 0);
    fake_daemon_set(DAEMON_ANSWERS, DAEMON_MAP);
    turn_over(true);
    eventually(strcmp(map_now().multipathd, "answers, queueing: on") == 0);
}

/* ---- a map that queues ------------------------------------------- */

static void
test_queueing_map_is_told_and_left_alone(void **state)
{
    unsigned reads;

    (void)state;
    dm.map.queues = true;
    start_map();
    eventually(map_now().queues);
    reads = dm_count(&dm.reads);
    eventually(dm_count(&dm.reads) > reads + 1);
    assert_int_equal(dm_count(&dm.orders), 0);
    assert_int_equal(fake_daemon_count(&fake_daemon.ordered), 0);
}

static void
test_given_up_paths_make_the_map_fail(void **state)
{
    (void)state;
    dm.map.queues = true;
    start_map();
    eventually(map_now().queues);
    lun_fail_queued(l, true);
    eventually(!map_now().queues);
    assert_int_equal(dm_count(&dm.orders), 1);
    assert_int_equal(map_now().orders, 1);
    eventually(fake_daemon_count(&fake_daemon.ordered) == 1);
    assert_string_equal(fake_daemon.last_order, "disablequeueing map dm-3");
    /* multipathd, started anew, puts it back: once more */
    SET_DM(map.queues, true);
    eventually(dm_count(&dm.orders) == 2);
    eventually(fake_daemon_count(&fake_daemon.ordered) == 2);
    eventually(!map_now().queues);
    /* and not when the paths are in use again */
    lun_fail_queued(l, false);
    SET_DM(map.queues, true);
    eventually(map_now().queues);
    assert_int_equal(dm_count(&dm.orders), 2);
}

static void
test_map_fails_without_multipathd_as_well(void **state)
{
    (void)state;
    dm.map.queues = true;
    start_map();
    lun_fail_queued(l, true);
    eventually(dm_count(&dm.orders) > 0 && !map_now().queues);
}

static void
test_map_fails_while_multipathd_hangs(void **state)
{
    (void)state;
    fake_daemon_set(DAEMON_HANGS, "");
    dm.map.queues = true;
    start_map();
    eventually(fake_daemon_count(&fake_daemon.shown) > 0);
    lun_fail_queued(l, true);
    eventually(dm_count(&dm.orders) > 0 && !map_now().queues);
}

static void
test_multipathd_is_told_while_device_mapper_hangs(void **state)
{
    (void)state;
    dm.map.queues = true;
    start_map();
    eventually(map_now().queues);
    SET_DM(hangs, true);
    lun_fail_queued(l, true);
    eventually(fake_daemon_count(&fake_daemon.ordered) > 0);
}

/* Opening reads the partition table, which waits in the map: nobody has the
 * device yet, and its path must do. */
static void
test_map_that_hangs_when_opened_is_made_to_fail(void **state)
{
    const char *path = fixture_path("map");

    (void)state;
    if (mknod(path, S_IFBLK | 0600, makedev(253, 3)) < 0)
        skip();
    fake_sysfs_put("class/block/dm-3/dm/uuid", "mpath-36001405aa");
    open_hangs = true;
    dm.map.queues = true;
    open_lun(path);
    lun_fail_queued(l, true);
    eventually(dm_count(&dm.orders) > 0);
    assert_true(dev_asked() == makedev(253, 3));
}

/* What stands there is another LUN's map, or none. */
static void
test_map_of_another_lun_is_never_ordered(void **state)
{
    struct lun_options opt = fixture_options(fixture_path("map"));
    static const char *const uuids[] = {"mpath-36001405bb", "LVM-abc", ""};

    (void)state;
    if (mknod(opt.device, S_IFBLK | 0600, makedev(253, 3)) < 0)
        skip();
    opt.expected_id = "naa.6001405aa";
    open_hangs = true;
    dm.map.queues = true;
    for (size_t i = 0; i < sizeof uuids / sizeof uuids[0]; i++) {
        uint64_t until_ms = clock_ms() + 400; /* a look takes 250 */

        fake_sysfs_put("class/block/dm-3/dm/uuid", uuids[i]);
        l = lun_create(&opt);
        assert_non_null(l);
        lun_fail_queued(l, true);
        while (clock_ms() < until_ms)
            usleep(1000);
        assert_int_equal(dm_count(&dm.orders) + dm_count(&dm.reads), 0);
        lun_destroy(l, soon());
        l = NULL;
    }
}

/* ---- other devices ----------------------------------------------- */

static void
test_nvme_paths_follow_their_ana_state(void **state)
{
    struct lun_map m;

    (void)state;
    kind = AN_NVME_HEAD;
    fake_sysfs_put("class/block/nvme0n1/device/iopolicy", "numa");
    fake_sysfs_put("class/block/nvme0n1/device/nvme1/state", "live");
    fake_sysfs_put("class/block/nvme0n1/device/nvme1/transport", "tcp");
    fake_sysfs_put("class/block/nvme0n1/device/nvme1/nvme0c1n1/ana_state",
                   "optimized");
    fake_sysfs_put("class/block/nvme0n1/device/nvme2/state", "live");
    fake_sysfs_put("class/block/nvme0n1/device/nvme2/nvme0c2n1/ana_state",
                   "inaccessible");
    start();
    eventually(status_of(l).paths_known == 2);
    assert_false(lun_get_map(l, &m));
    assert_string_equal(path_of("nvme0c1n1").detail,
                        "ANA optimized, nvme1, tcp");
    assert_string_equal(path_of("nvme0c2n1").error,
                        "controller live, ANA inaccessible");
    assert_int_equal(status_of(l).paths_good, 1);
    fake_sysfs_put("class/block/nvme0n1/device/nvme2/nvme0c2n1/ana_state",
                   "optimized");
    fake_sysfs_put("class/block/nvme0n1/device/nvme1/state", "connecting");
    tell(UEVENT_NVME, "nvme1", "", -1);
    eventually(path_of("nvme0c1n1").state == LUN_PATH_FAILED);
    eventually(path_of("nvme0c2n1").state == LUN_PATH_GOOD);
    assert_int_equal(dm_count(&dm.reads), 0);
}

static void
test_disk_that_goes_offline_is_no_path(void **state)
{
    (void)state;
    kind = A_DISK;
    start();
    eventually(path_of("sdb").state == LUN_PATH_GOOD);
    fake_sysfs_put("class/block/sdb/device/state", "offline");
    eventually(status_of(l).paths_good == 0);
    assert_string_equal(path_of("sdb").error, "state offline");
    fake_sysfs_put("class/block/sdb/device/state", "running");
    eventually(status_of(l).paths_good == 1);
    assert_int_equal(dm_count(&dm.reads), 0);
}

/* ---- more paths than can be used --------------------------------- */

/* "path2", "path3", ... beside sdb and sdc, until there are n. */
static void
put_paths(unsigned n)
{
    char name[16], number[16];

    for (unsigned i = 2; i < n; i++) {
        snprintf(name, sizeof name, "path%u", i);
        snprintf(number, sizeof number, "65:%u", 16 * i);
        fake_sysfs_path("dm-3", name, number, "running");
    }
}

static void
test_map_with_too_many_paths_is_refused_once_told(void **state)
{
    (void)state;
    put_paths(LUN_PATH_MAX + 1);
    open_lun(fixture_file("disk", 1 << 20));
    eventually(opens >= 3);
    assert_int_equal(errors_of("/disk has 33 paths, at most 32 can be used: "
                               "take some away"),
                     1);
    assert_false(status_of(l).known);
    eventually(status_of(l).paths_known == 1);
    assert_string_equal(path_of(fixture_path("disk")).error,
                        "more paths than can be used");
    fake_sysfs_remove("class/block/dm-3/slaves/path7");
    eventually(status_of(l).known && status_of(l).paths_good == LUN_PATH_MAX);
}

static void
test_map_that_grows_beyond_is_told_each_time_it_does(void **state)
{
    unsigned before;

    (void)state;
    put_paths(LUN_PATH_MAX);
    start();
    eventually(status_of(l).paths_good == LUN_PATH_MAX);
    for (unsigned times = 1; times <= 2; times++) {
        put_paths(LUN_PATH_MAX + 2);
        eventually(errors_of("/disk has 34 paths, at most 32") == times);
        before = looks;
        eventually(looks >= before + 2);
        assert_int_equal(errors_of("not registered"), times);
        assert_true(status_of(l).known);
        assert_int_equal(status_of(l).paths_known, LUN_PATH_MAX);
        fake_sysfs_remove("class/block/dm-3/slaves/path32");
        fake_sysfs_remove("class/block/dm-3/slaves/path33");
        before = looks;
        eventually(looks >= before + 2);
    }
}

static void
test_nvme_head_with_too_many_paths_is_refused(void **state)
{
    char at[160];

    (void)state;
    kind = AN_NVME_HEAD;
    for (unsigned i = 0; i < LUN_PATH_MAX + 3; i++) {
        snprintf(at, sizeof at,
                 "class/block/nvme0n1/device/nvme%u/nvme0c%un1/ana_state", i,
                 i);
        fake_sysfs_put(at, "optimized");
    }
    open_lun(fixture_file("disk", 1 << 20));
    eventually(errors_of("/disk has 35 paths, at most 32") == 1);
    assert_false(status_of(l).known);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
#define TEST_DAEMON(name)                                                      \
    cmocka_unit_test_setup_teardown(name, setup_daemon, teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST_DAEMON(test_paths_are_told_with_what_is_known_of_them),
        TEST_DAEMON(test_event_of_a_path_is_heard_at_once),
        TEST(test_lost_event_is_made_up_for_by_looking),
        TEST(test_events_the_kernel_dropped_are_a_reason_to_look),
        TEST(test_events_in_the_wrong_order_change_nothing),
        TEST(test_no_path_in_the_map_is_told_though_disks_run),
        TEST(test_sysfs_speaks_against_a_path_too),
        TEST(test_path_list_changes_under_us),
        TEST(test_path_that_takes_another_ones_name_is_looked_up_by_number),
        TEST(test_no_events_to_be_had_is_no_trouble),
        TEST(test_renamed_map_is_followed),
        TEST(test_removed_device_is_noticed_by_its_event),
        TEST(test_hanging_device_mapper_leaves_sysfs),
        TEST(test_hanging_device_mapper_does_not_keep_the_lun),
        TEST(test_absent_multipathd_is_told),
        TEST_DAEMON(test_hanging_multipathd_keeps_nobody),
        TEST_DAEMON(test_restarted_multipathd_is_asked_again),
        TEST_DAEMON(test_queueing_map_is_told_and_left_alone),
        TEST_DAEMON(test_given_up_paths_make_the_map_fail),
        TEST(test_map_fails_without_multipathd_as_well),
        TEST_DAEMON(test_map_fails_while_multipathd_hangs),
        TEST_DAEMON(test_multipathd_is_told_while_device_mapper_hangs),
        TEST(test_map_that_hangs_when_opened_is_made_to_fail),
        TEST(test_map_of_another_lun_is_never_ordered),
        TEST(test_nvme_paths_follow_their_ana_state),
        TEST(test_disk_that_goes_offline_is_no_path),
        TEST(test_map_with_too_many_paths_is_refused_once_told),
        TEST(test_map_that_grows_beyond_is_told_each_time_it_does),
        TEST(test_nvme_head_with_too_many_paths_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
