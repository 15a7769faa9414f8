/* What the bench's C programs share: options by name, clocks, the end by SIGTERM, and how loudly they fail. */
#ifndef BENCH_COMMON_H
#define BENCH_COMMON_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

static volatile sig_atomic_t ended;

static void on_end(int signal_number)
{
    (void)signal_number;
    ended = 1;
}

static void fail(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    exit(1);
}

static void misused(const char *what, const char *value)
{
    fprintf(stderr, "%s: %s\n", what, value);
    exit(2);
}

/* SIGTERM and SIGINT interrupt what blocks (no SA_RESTART). */
static inline void end_on_signal(void)
{
    struct sigaction action = {.sa_handler = on_end};
    if (sigaction(SIGTERM, &action, NULL) || sigaction(SIGINT, &action, NULL))
        fail("sigaction");
}

static inline uint64_t now_ns(clockid_t clock)
{
    struct timespec time;
    clock_gettime(clock, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

/* User and system time of this process, in seconds. */
static inline double cpu_s(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static inline double number(const char *name, const char *text, double least, double most)
{
    char *end;
    double value = strtod(text, &end);
    if (*end || end == text || !(value >= least && value <= most))
        misused(name, text);
    return value;
}

/* "80" or "80-90". */
static inline void range(const char *name, const char *text, unsigned *first, unsigned *last)
{
    char *end;
    unsigned long low = strtoul(text, &end, 10), high = low;
    if (*end == '-')
        high = strtoul(end + 1, &end, 10);
    if (*end || end == text || low > high || high > 65535)
        misused(name, text);
    *first = (unsigned)low;
    *last = (unsigned)high;
}

static inline void pin_to(int core)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET((size_t)core, &set);
    if (core >= 0 && sched_setaffinity(0, sizeof set, &set))
        fail("sched_setaffinity");
}

/* For whoever started this: from now on packets are taken. */
static inline void say_ready(void)
{
    puts("ready");
    fflush(stdout);
}

#endif
