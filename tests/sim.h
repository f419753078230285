/*
 * Simulator: a network of hosts in one process on virtual time, behind struct weft_io. From one
 * seed comes everything that varies: delays of frames, lengths of work, drops. Frames of one
 * connection stay in order; between connections any order can happen.
 */
#ifndef WEFT_TESTS_SIM_H
#define WEFT_TESTS_SIM_H

#include "proto/io.h"

#define SIM_HOSTS_MAX 16

struct sim;

struct sim_options {
    uint64_t seed;
    uint64_t delay_min_ns, delay_max_ns; /* of a frame, log-uniform */
    uint64_t work_max_ns;                /* virtual length of a work item, uniform */
    double drop;                         /* probability that `may_drop` is asked */
    /* True: this frame is lost. NULL: none is. */
    bool (*may_drop)(void *arg, const Weft__Envelope *env);
    void *arg;
};

struct sim *sim_open(const struct sim_options *opt);
void sim_close(struct sim *s); /* connections that are left are freed without events */
/* The io of host i. */
struct weft_io *sim_io(struct sim *s, unsigned host);
/* Connections dialled to `address` are accepted by host; one listener per host. */
void sim_listen(struct sim *s, unsigned host, const char *address,
                void (*accept)(void *arg, struct weft_conn *c), void *arg);
/* Breaks all connections of a host and refuses new ones, as a pulled cable does: the others notice
 * nothing but silence. */
void sim_cut(struct sim *s, unsigned host);
/* Runs events until *stop is true (returns true) or virtual time passes the limit or nothing is
 * left to do (false). */
bool sim_run(struct sim *s, const bool *stop, uint64_t limit_ns);
uint64_t sim_now_ns(const struct sim *s);
uint64_t sim_dropped(const struct sim *s);

#endif
