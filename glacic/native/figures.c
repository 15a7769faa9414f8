/* Road 2, compiled: what both readers need. A histogram as in glacic/ctlplane/reading.py, clocks, netlink attributes. */
#include "road.h"

#include <linux/netlink.h>
#include <string.h>
#include <time.h>

enum { SUB_BITS = 3 }; /* 8 steps for each power of two, as Latency in reading.py */

void latency_add(struct latency *latency, uint64_t duration_ns, uint64_t packets)
{
    unsigned step = (unsigned)duration_ns;
    if (duration_ns >> (SUB_BITS + 1)) {
        unsigned shift = 63 - (unsigned)__builtin_clzll(duration_ns) - SUB_BITS;
        step = (shift << SUB_BITS) + (unsigned)(duration_ns >> shift);
    }
    if (duration_ns > latency->largest)
        add_to(&latency->largest, duration_ns - latency->largest);
    add_to(&latency->steps[step], packets);
}

PyObject *latency_read(const struct latency *latency)
{
    PyObject *steps = PyDict_New();
    for (unsigned step = 0; steps && step < LATENCY_STEPS; step++) {
        unsigned long long packets = figure(&latency->steps[step]);
        if (!packets)
            continue;
        PyObject *key = PyLong_FromUnsignedLong(step), *value = PyLong_FromUnsignedLongLong(packets);
        if (!key || !value || PyDict_SetItem(steps, key, value) < 0)
            Py_CLEAR(steps);
        Py_XDECREF(key);
        Py_XDECREF(value);
    }
    return steps ? Py_BuildValue("(NK)", steps, figure(&latency->largest)) : NULL;
}

PyObject *reasons_read(const uint64_t *by_state)
{
    PyObject *tuple = PyTuple_New(STATES);
    for (int state = 0; tuple && state < STATES; state++) {
        PyObject *count = PyLong_FromUnsignedLongLong(figure(&by_state[state]));
        if (!count)
            Py_CLEAR(tuple);
        else
            PyTuple_SET_ITEM(tuple, state, count);
    }
    return tuple;
}

static uint64_t now_ns(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint64_t monotonic_ns(void) { return now_ns(CLOCK_MONOTONIC); }
uint64_t realtime_ns(void) { return now_ns(CLOCK_REALTIME); }

bool next_attribute(struct attribute *attribute)
{
    struct nlattr header;
    size_t left = (size_t)(attribute->end - attribute->at);
    if (left < sizeof header)
        return false;
    memcpy(&header, attribute->at, sizeof header);
    if (header.nla_len < sizeof header || header.nla_len > left)
        return false;
    attribute->type = header.nla_type & NLA_TYPE_MASK;
    attribute->data = attribute->at + sizeof header;
    attribute->length = header.nla_len - sizeof header;
    size_t step = NLA_ALIGN(header.nla_len);
    attribute->at += step < left ? step : left;
    return true;
}

uint32_t be32(const uint8_t *at) { return (uint32_t)be16(at) << 16 | be16(at + 2); }
unsigned be16(const uint8_t *at) { return (unsigned)at[0] << 8 | at[1]; }
