/* SPDX-License-Identifier: BSD-3-Clause */
/* Every time and count whose value leans on another one, with its default.
 *
 * Worked timeline, defaults, both paths of a LUN swallow everything at t=0:
 *
 *   t=0       last answer of any path was at most probe_interval ago
 *   t<=250    the next probe of each path goes out           probe_interval
 *   t<=1000   that probe is overdue: the path is failed      probe_timeout
 *   t<=1000   no path left: verdict LOST, route OPENING
 *   t<=1100   a parked standby connection answers GO; fencing us takes the
 *             peer one PERSISTENT RESERVE OUT (and one LUN RESET on targets
 *             without PREEMPT AND ABORT)
 *   t<=6000   a peer that has not answered GO is given up     open_timeout
 *   t<=30000  a Linux guest's SCSI disk gives up (60000 for Windows)
 *
 * The serving peer's host loses power at t=0:
 *
 *   t<=1000   unacknowledged data ends the TCP connection    link_timeout
 *             (an idle connection: the heartbeat is overdue as late)
 *   t<=1100   the next peer answers GO and has fenced the lost one
 *
 * Rules that the configuration is checked against, all in milliseconds:
 *   probe_interval >= 50
 *   probe_timeout  >= 2 * probe_interval
 *   io_timeout     >= probe_timeout
 *   link_timeout   >= 200
 *   open_timeout   >= 2 * link_timeout
 *   failback_max   >= failback_after
 *   queue_limit    == 0 or >= open_timeout + probe_interval + probe_timeout
 *   slow_least     <  probe_timeout, and
 *   slow_window    >= 4 * probe_interval, unless slow_factor is 0
 */
#ifndef DETOUR_TIMERS_H
#define DETOUR_TIMERS_H

/* how often each path, and the device as a whole, is probed */
#define TIMERS_PROBE_INTERVAL_MS 250
/* an unanswered probe is overdue after this long */
#define TIMERS_PROBE_TIMEOUT_MS 750
/* a request is overdue after this long (and fails the route only if a probe
 * is overdue as well: slow is not dead) */
#define TIMERS_IO_TIMEOUT_MS 1000
/* data that a peer has not acknowledged, a heartbeat not answered */
#define TIMERS_LINK_TIMEOUT_MS 1000
/* connect, TLS, option negotiation, and separately GO with its fencing */
#define TIMERS_OPEN_TIMEOUT_MS 5000
/* how often a parked connection is asked NBD_OPT_INFO */
#define TIMERS_STANDBY_INTERVAL_MS 1000
/* the LUN's paths must be good this long before the route comes home; it is
 * doubled each time they fail again within failback_max of a return */
#define TIMERS_FAILBACK_AFTER_MS 10000
#define TIMERS_FAILBACK_MAX_MS   300000
/* a random part added to each hold-down, so that hosts come home staggered */
#define TIMERS_FAILBACK_JITTER_MS 1000
/* so many moves between own paths and peers within an hour, and the route stays
 * with a peer: with the doubling above, and paths that fail as soon as it is
 * home, 10 are made in 10 + 20 + 40 + 80 + 160 s */
#define TIMERS_SWITCH_LIMIT 10
/* a held request fails with EIO after this long; 0: never */
#define TIMERS_QUEUE_LIMIT_MS 0
/* health/slow.h, which works out how soon slow paths are told: probes of a
 * window take this many times as long as those of the hour before, and at least
 * so long */
#define TIMERS_SLOW_FACTOR    8
#define TIMERS_SLOW_LEAST_MS  50
#define TIMERS_SLOW_WINDOW_MS 5000
/* a route that has been through a peer for this long fails /health, where it
 * is a warning before */
#define TIMERS_REDIRECT_ALARM_MS 600000

/* how many peers standby connections are kept to */
#define TIMERS_STANDBY_PEERS 2
/* connections of a route, spread over the peer's addresses */
#define TIMERS_CONNECTIONS 2
/* requests the proxy takes on one connection before it stops reading */
#define TIMERS_REQUESTS_PER_CONNECTION 128

#endif
