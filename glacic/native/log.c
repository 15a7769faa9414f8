/* Road 2, compiled: the loop of the reader of a log group. Copies of packets -> their flows' states, counted.
 *
 * The kernel collects packets and sends them together: one system call for many. How many it waits for follows the
 * load: one where packets are rare, so that a new flow is seen at once; MANY where they are not, so that reading keeps up.
 * A packet whose flow is not in the table (or that is anything but plain TCP or UDP) is put to Python.
 * The messages: linux/netfilter/nfnetlink_log.h.
 */
#include "road.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_arp.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_log.h>
#include <linux/netlink.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>

enum { BUFFER = 1 << 17 };    /* the kernel's largest datagram */
enum { MANY = 64 };           /* packets the kernel waits for under load: as BATCH in glacic/ctlplane/nflog.py */
enum { LOOK_NS = 20000000 };  /* how long packets are counted before ... */
enum { RISE = 256, FALL = 64 }; /* so many in that time are a load, or are none any more */

struct logged {
    const char *prefix;
    size_t prefix_length;
    const uint8_t *payload;
    size_t size;
    uint32_t mark, sequence;
    const uint8_t *mac; /* NULL for none */
    bool numbered;
};

typedef struct {
    PyObject_HEAD
    int socket;
    uint16_t group;
    Rules *rules;
    PyObject *ask;
    atomic_bool stopping;
    uint64_t received, lost, overruns;
    uint64_t by_state[STATES];
    uint32_t next_sequence;
    bool counted_one;
    struct latency latency;
    uint32_t threshold, seen; /* what the kernel waits for; packets since `looked_ns` */
    uint64_t looked_ns, came_ns, now_ns;
    uint8_t *buffer;
    bool running;
} Log;

/* ---- netlink */

/* As _number() in glacic/ctlplane/netlink.py. */
static uint32_t number_in(const struct attribute *attribute)
{
    switch (attribute->length) {
    case sizeof(uint16_t):
        return be16(attribute->data);
    case sizeof(uint32_t):
        return be32(attribute->data);
    }
    return 0;
}

static void read_logged(const uint8_t *message, size_t length, struct logged *logged)
{
    size_t start = NLMSG_HDRLEN + sizeof(struct nfgenmsg);
    memset(logged, 0, sizeof *logged);
    const uint8_t *hardware = NULL;
    bool ethernet = false;
    struct attribute attribute = {.at = message + (start < length ? start : length), .end = message + length};
    while (next_attribute(&attribute)) {
        const uint8_t *data = attribute.data;
        switch (attribute.type) {
        case NFULA_PREFIX:
            logged->prefix = (const char *)data;
            logged->prefix_length = attribute.length;
            break;
        case NFULA_PAYLOAD:
            logged->payload = data;
            logged->size = attribute.length;
            break;
        case NFULA_MARK:
            logged->mark = number_in(&attribute);
            break;
        case NFULA_SEQ:
            if ((logged->numbered = attribute.length == sizeof(uint32_t)))
                logged->sequence = be32(data);
            break;
        case NFULA_HWTYPE:
            ethernet = number_in(&attribute) == ARPHRD_ETHER;
            break;
        case NFULA_HWADDR: /* struct nfulnl_msg_packet_hw */
            hardware = NULL;
            if (attribute.length >= sizeof(struct nfulnl_msg_packet_hw) && be16(data) == MAC_LENGTH)
                hardware = data + offsetof(struct nfulnl_msg_packet_hw, hw_addr);
            break;
        }
    }
    if (ethernet) /* GRE, for one, reports its 4-byte tunnel address */
        logged->mac = hardware;
}

static void wait_for(Log *log, uint32_t packets)
{
    struct {
        struct nlmsghdr header;
        struct nfgenmsg nfgen;
        struct nlattr attribute;
        uint32_t threshold;
    } request = {
        .header = {.nlmsg_len = sizeof request,
                   .nlmsg_type = NFNL_SUBSYS_ULOG << 8 | NFULNL_MSG_CONFIG,
                   .nlmsg_flags = NLM_F_REQUEST},
        .nfgen = {.nfgen_family = AF_UNSPEC, .version = NFNETLINK_V0, .res_id = htons(log->group)},
        .attribute = {sizeof(struct nlattr) + sizeof(uint32_t), NFULA_CFG_QTHRESH},
        .threshold = htonl(packets),
    };
    if (send(log->socket, &request, sizeof request, 0) == sizeof request)
        log->threshold = packets;
}

static void follow_load(Log *log, uint32_t packets)
{
    log->seen += packets;
    if (log->came_ns - log->looked_ns < LOOK_NS)
        return;
    uint64_t looks = (log->came_ns - log->looked_ns) / LOOK_NS;
    if (log->threshold != MANY && log->seen / looks >= RISE)
        wait_for(log, MANY);
    else if (log->threshold == MANY && log->seen / looks < FALL)
        wait_for(log, 1);
    log->looked_ns = log->came_ns;
    log->seen = 0;
}

/* ---- packets */

static void count(Log *log, const struct logged *logged)
{
    if (logged->numbered) {
        if (log->counted_one)
            add_to(&log->lost, logged->sequence - log->next_sequence); /* both of 32 bits, and so is the difference */
        log->counted_one = true;
        log->next_sequence = logged->sequence + 1;
    }
    add_to(&log->received, 1);
}

/* Under the lock. false: this one is Python's. */
static bool take_here(Log *log, const struct logged *logged)
{
    const struct policy *policy = rules_logged(log->rules, logged->mark, logged->prefix, logged->prefix_length);
    if (!policy)
        return false;
    enum state state = rules_state(log->rules, policy, logged->payload, logged->size, logged->mac, log->now_ns);
    add_to(&log->by_state[state], 1);
    return state != NO_STATE;
}

/* ask(prefix, payload, mark, mac). false: a Python error is set. */
static bool take_by_python(Log *log, const struct logged *logged)
{
    PyObject *none = PyObject_CallFunction(
        log->ask, "y#y#ky#", logged->prefix ? logged->prefix : "", (Py_ssize_t)logged->prefix_length,
        logged->payload ? (const char *)logged->payload : "", (Py_ssize_t)logged->size, (unsigned long)logged->mark,
        (const char *)logged->mac, (Py_ssize_t)(logged->mac ? MAC_LENGTH : 0));
    Py_XDECREF(none);
    return none != NULL;
}

/* The next packet in what is left of a datagram. */
static bool next_packet(const uint8_t **at, size_t *left, struct logged *logged)
{
    while (*left >= NLMSG_HDRLEN) {
        struct nlmsghdr header;
        memcpy(&header, *at, sizeof header);
        if (header.nlmsg_len < NLMSG_HDRLEN || header.nlmsg_len > *left)
            return false;
        const uint8_t *message = *at;
        size_t step = NLMSG_ALIGN(header.nlmsg_len);
        *at += step < *left ? step : *left;
        *left -= step < *left ? step : *left;
        if (header.nlmsg_type == (NFNL_SUBSYS_ULOG << 8 | NFULNL_MSG_PACKET)) {
            read_logged(message, header.nlmsg_len, logged);
            return true;
        }
    }
    return false;
}

/* Every packet of one datagram. `thread` as in queue.c. false: a Python error is set, and the interpreter's lock is held. */
static bool take_all(Log *log, const uint8_t *data, size_t left, PyThreadState **thread)
{
    struct logged logged;
    uint32_t packets = 0;
    log->came_ns = monotonic_ns();
    log->now_ns = realtime_ns();
    bool more = next_packet(&data, &left, &logged);
    while (more) {
        uint32_t here = 0;
        bool taken = true;
        road_lock();
        while (more && taken) {
            if ((taken = take_here(log, &logged))) {
                count(log, &logged);
                here++;
                more = next_packet(&data, &left, &logged);
            }
        }
        road_unlock();
        if (here)
            latency_add(&log->latency, monotonic_ns() - log->came_ns, here);
        packets += here;
        if (!taken) {
            PyEval_RestoreThread(*thread);
            if (!take_by_python(log, &logged))
                return false;
            *thread = PyEval_SaveThread();
            count(log, &logged); /* not before: what has been counted has been decided */
            latency_add(&log->latency, monotonic_ns() - log->came_ns, 1);
            packets++;
            more = next_packet(&data, &left, &logged);
        }
    }
    follow_load(log, packets);
    return true;
}

static PyObject *run(Log *log, PyObject *early)
{
    PyThreadState *thread;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(early); i++) {
        PyObject *datagram = Py_NewRef(PyList_GET_ITEM(early, i));
        bool good = true;
        if (PyBytes_Check(datagram)) {
            const uint8_t *data = (const uint8_t *)PyBytes_AS_STRING(datagram);
            thread = PyEval_SaveThread();
            good = take_all(log, data, (size_t)PyBytes_GET_SIZE(datagram), &thread);
            if (good)
                PyEval_RestoreThread(thread);
        }
        Py_DECREF(datagram);
        if (!good)
            return NULL;
    }
    thread = PyEval_SaveThread();
    while (!atomic_load(&log->stopping)) {
        ssize_t size = recv(log->socket, log->buffer, BUFFER, 0);
        if (size >= 0) {
            if (!take_all(log, log->buffer, (size_t)size, &thread))
                return NULL;
        } else if (errno == ENOBUFS) {
            add_to(&log->overruns, 1);
        } else if (errno == EINTR) {
            PyEval_RestoreThread(thread);
            if (PyErr_CheckSignals() < 0) /* only ever in the main thread */
                return NULL;
            thread = PyEval_SaveThread();
        } else if (errno != EAGAIN) {
            PyEval_RestoreThread(thread);
            return PyErr_SetFromErrno(PyExc_OSError);
        }
    }
    PyEval_RestoreThread(thread);
    Py_RETURN_NONE;
}

static PyObject *log_run(Log *log, PyObject *early)
{
    if (!PyList_Check(early)) {
        PyErr_SetString(PyExc_TypeError, "run() takes the list of what came before it");
        return NULL;
    }
    if (log->running) {
        PyErr_SetString(PyExc_RuntimeError, "it is running already");
        return NULL;
    }
    log->running = true;
    PyObject *none = run(log, early);
    log->running = false;
    return none;
}

/* ---- Python */

static PyObject *log_new(PyTypeObject *type, PyObject *arguments, PyObject *Py_UNUSED(named))
{
    int socket;
    uint16_t group;
    PyObject *rules, *ask;
    if (!PyArg_ParseTuple(arguments, "iO&O!O", &socket, to_u16, &group, &Rules_Type, &rules, &ask))
        return NULL;
    Log *log = (Log *)type->tp_alloc(type, 0);
    if (!log)
        return NULL;
    log->socket = socket;
    log->group = group;
    log->threshold = 1;
    log->rules = (Rules *)Py_NewRef(rules);
    log->ask = Py_NewRef(ask);
    log->buffer = PyMem_Malloc(BUFFER);
    if (!log->buffer) {
        Py_DECREF(log);
        return PyErr_NoMemory();
    }
    return (PyObject *)log;
}

static int log_traverse(Log *log, visitproc visit, void *arg)
{
    Py_VISIT(log->ask);
    return 0;
}

static int log_clear(Log *log)
{
    Py_CLEAR(log->ask);
    return 0;
}

static void log_dealloc(Log *log)
{
    PyObject_GC_UnTrack(log);
    log_clear(log);
    Py_XDECREF(log->rules);
    PyMem_Free(log->buffer);
    Py_TYPE(log)->tp_free((PyObject *)log);
}

static PyObject *log_stop(Log *log, PyObject *Py_UNUSED(none))
{
    atomic_store(&log->stopping, true);
    Py_RETURN_NONE;
}

static PyObject *log_figures(Log *log, PyObject *Py_UNUSED(none))
{
    unsigned long long received = figure(&log->received); /* first: the others are no less then */
    return Py_BuildValue("{sKsKsKsN}", "received", received, "lost", figure(&log->lost), "overruns",
                         figure(&log->overruns), "by_state", reasons_read(log->by_state));
}

static PyObject *log_latency(Log *log, PyObject *Py_UNUSED(none)) { return latency_read(&log->latency); }

static PyMethodDef methods[] = {
    {"run", (PyCFunction)log_run, METH_O, "run(early): take those datagrams, and what comes, until stop()."},
    {"stop", (PyCFunction)log_stop, METH_NOARGS, "stop(): let run() end, when its socket's time-out is over."},
    {"figures", (PyCFunction)log_figures, METH_NOARGS, "figures() -> what it has counted."},
    {"latency", (PyCFunction)log_latency, METH_NOARGS, "latency() -> ({step: packets}, largest)"},
    {NULL, NULL, 0, NULL},
};

PyTypeObject Log_Type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "glacic.native._road.Log",
    .tp_doc = "Log(socket, group, rules, ask): the loop of one log group.",
    .tp_basicsize = sizeof(Log),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_new = log_new,
    .tp_traverse = (traverseproc)log_traverse,
    .tp_clear = (inquiry)log_clear,
    .tp_dealloc = (destructor)log_dealloc,
    .tp_methods = methods,
};
