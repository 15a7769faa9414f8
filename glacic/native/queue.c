/* Road 2, compiled: the loop of the inline reader. Held packets -> their flows' states -> verdicts, without Python.
 *
 * As many packets as have come are read at once, one where there is one: nothing waits for company. They are answered in
 * their order, in one send: packets in a row with the same answer by one batch verdict, which the kernel takes for
 * everything that it holds up to that id, and everything before has been answered. Where a send fails that is not so: then
 * the next one begins with a drop of all that was to be answered. A packet whose flow is not in the table (or that is
 * anything but plain TCP or UDP) is put to Python, after what came before it was answered.
 *
 * Whatever comes is answered, also what cannot be read: a packet that is not answered would hold its place for ever.
 * The messages: linux/netfilter/nfnetlink_queue.h.
 */
#define _GNU_SOURCE
#include "road.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_queue.h>
#include <linux/netlink.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>

enum { BATCH = 64 };            /* packets read at once */
enum { DATAGRAM_MAX = 1024 };   /* copy range and attributes are 400 bytes at most */
enum { INTERFACES = 16 };       /* whose types are remembered, by number */
enum { TYPE_KEPT_NS = 500000000 }; /* and for how long: a number may come back as another interface */
enum { VERDICT_ACCEPT = 1, VERDICT_DROP = 2, VERDICT_REJECT = 3 }; /* glacic/learning/flow.py */

struct held {
    uint32_t id, mark, interface;
    const uint8_t *hardware; /* its address: 8 bytes, or NULL */
    unsigned hardware_length;
    const uint8_t *payload;
    size_t size;
};

struct answer {
    uint32_t id, mark;
    bool accept, marked;
};

struct verdict { /* a message to the kernel; the mark is left out where there is none */
    struct nlmsghdr header;
    struct nfgenmsg nfgen;
    struct nlattr verdict_header;
    struct nfqnl_msg_verdict_hdr verdict;
    struct nlattr mark_header;
    uint32_t mark;
};

typedef struct {
    PyObject_HEAD
    int socket;
    uint16_t number;
    Rules *rules;
    PyObject *ask, *tell, *trouble;
    atomic_bool stopping;
    atomic_ullong answering; /* the number of the read that is being answered, 0 for none */
    uint64_t reads, processed, accepted, dropped, rejected, verdict_errors;
    uint64_t by_state[STATES];
    struct latency latency;
    struct {
        uint32_t number;
        bool ethernet;
        uint64_t until_ns;
    } interfaces[INTERFACES];
    unsigned next_interface;
    struct mmsghdr messages[BATCH];
    struct iovec parts[BATCH];
    uint8_t datagrams[BATCH][DATAGRAM_MAX];
    struct held held[BATCH];
    struct answer answers[BATCH];
    unsigned answered;
    bool failed; /* to answer everything up to this one */
    uint32_t failed_id;
    bool running;
    uint64_t came_ns; /* when the packets that are being answered were read */
} Queue;

/* ---- netlink */

static bool read_held(const uint8_t *message, size_t length, struct held *held)
{
    memset(held, 0, sizeof *held);
    bool has_id = false;
    struct attribute attribute = {.at = message + NLMSG_HDRLEN + sizeof(struct nfgenmsg), .end = message + length};
    while (next_attribute(&attribute)) {
        const uint8_t *data = attribute.data;
        switch (attribute.type) {
        case NFQA_PACKET_HDR:
            if (attribute.length >= sizeof(uint32_t)) {
                has_id = true;
                held->id = be32(data);
            }
            break;
        case NFQA_MARK:
            if (attribute.length >= sizeof(uint32_t))
                held->mark = be32(data);
            break;
        case NFQA_IFINDEX_INDEV:
            if (attribute.length >= sizeof(uint32_t))
                held->interface = be32(data);
            break;
        case NFQA_HWADDR: /* struct nfqnl_msg_packet_hw */
            if (attribute.length >= sizeof(struct nfqnl_msg_packet_hw)) {
                held->hardware_length = be16(data);
                held->hardware = data + offsetof(struct nfqnl_msg_packet_hw, hw_addr);
            }
            break;
        case NFQA_PAYLOAD:
            held->payload = data;
            held->size = attribute.length;
            break;
        }
    }
    return has_id;
}

/* Returns the end of the message. batch: for everything up to the answer's id. */
static uint8_t *add_verdict(const Queue *queue, uint8_t *end, const struct answer *answer, bool batch)
{
    size_t size = answer->marked ? sizeof(struct verdict) : offsetof(struct verdict, mark_header);
    struct verdict message = {
        .header = {.nlmsg_len = (uint32_t)size,
                   .nlmsg_type = (uint16_t)(NFNL_SUBSYS_QUEUE << 8 | (batch ? NFQNL_MSG_VERDICT_BATCH : NFQNL_MSG_VERDICT)),
                   .nlmsg_flags = NLM_F_REQUEST},
        .nfgen = {.nfgen_family = 0, .version = NFNETLINK_V0, .res_id = htons(queue->number)},
        .verdict_header = {sizeof(struct nlattr) + sizeof(struct nfqnl_msg_verdict_hdr), NFQA_VERDICT_HDR},
        .verdict = {.verdict = htonl(answer->accept ? NF_ACCEPT : NF_DROP), .id = htonl(answer->id)},
        .mark_header = {sizeof(struct nlattr) + sizeof(uint32_t), NFQA_MARK},
        .mark = htonl(answer->mark),
    };
    memcpy(end, &message, size);
    return end + size;
}

/* Sends what has been decided. Verdicts for several packets in a row that are the same are one. Returns 0, or errno. */
static int flush(Queue *queue)
{
    struct verdict messages[BATCH + 1];
    uint8_t *end = (uint8_t *)messages;
    if (!queue->answered)
        return 0;
    if (queue->failed) /* they are still held, and a batch verdict further on would be theirs too */
        end = add_verdict(queue, end, &(struct answer){.id = queue->failed_id}, true);
    for (unsigned i = 0; i < queue->answered;) {
        const struct answer *first = &queue->answers[i];
        unsigned last = i;
        while (last + 1 < queue->answered && queue->answers[last + 1].accept == first->accept &&
               queue->answers[last + 1].marked == first->marked && queue->answers[last + 1].mark == first->mark)
            last++;
        end = add_verdict(queue, end, &queue->answers[last], last > i);
        i = last + 1;
    }
    int error = 0;
    queue->failed = send(queue->socket, messages, (size_t)(end - (uint8_t *)messages), 0) < 0;
    if (queue->failed) {
        error = errno;
        queue->failed_id = queue->answers[queue->answered - 1].id;
        add_to(&queue->verdict_errors, queue->answered);
    }
    latency_add(&queue->latency, monotonic_ns() - queue->came_ns, queue->answered);
    add_to(&queue->processed, queue->answered);
    queue->answered = 0;
    return error;
}

/* Whatever is neither "accept" nor "reject" is a drop. */
static void answer(Queue *queue, uint32_t id, int verdict, bool marked, uint32_t mark)
{
    bool accept = verdict == VERDICT_ACCEPT || verdict == VERDICT_REJECT;
    marked = marked && accept;
    queue->answers[queue->answered++] =
        (struct answer){.id = id, .mark = marked ? mark : 0, .marked = marked, .accept = accept};
    add_to(verdict == VERDICT_ACCEPT ? &queue->accepted : &queue->dropped, 1);
    add_to(&queue->rejected, verdict == VERDICT_REJECT);
}

/* ---- without Python */

/* Whether hardware addresses there are MACs; false in `known` where Python is to be asked. */
static bool is_ethernet(const Queue *queue, uint32_t number, uint64_t now_ns, bool *known)
{
    for (unsigned i = 0; i < INTERFACES; i++)
        if (queue->interfaces[i].number == number && now_ns < queue->interfaces[i].until_ns) {
            *known = true;
            return queue->interfaces[i].ethernet;
        }
    *known = false;
    return false;
}

/* false: this one is Python's. */
static bool answer_here(Queue *queue, const struct held *held, uint64_t now_ns)
{
    uint32_t others;
    const struct policy *policy = rules_asked(queue->rules, held->mark, &others);
    const uint8_t *mac = NULL;
    if (!policy || rules_window(queue->rules))
        return false;
    if (held->hardware && rules_by_mac(policy)) {
        bool known;
        if (is_ethernet(queue, held->interface, queue->came_ns, &known))
            mac = held->hardware;
        if (!known || (mac && held->hardware_length != MAC_LENGTH))
            return false;
    }
    enum state state = rules_state(queue->rules, policy, held->payload, held->size, mac, now_ns);
    if (state == NO_STATE)
        return false;
    add_to(&queue->by_state[state], 1);
    if (state == ALLOWED)
        answer(queue, held->id, VERDICT_ACCEPT, true, others);
    else if (rules_rejects(policy))
        answer(queue, held->id, VERDICT_REJECT, true, others | rules_reject_bit(queue->rules));
    else
        answer(queue, held->id, VERDICT_DROP, false, 0);
    return true;
}

/* ---- with Python */

static bool call(PyObject *callable)
{
    PyObject *none = PyObject_CallNoArgs(callable);
    Py_XDECREF(none);
    return none != NULL;
}

static bool say(Queue *queue, int error)
{
    PyObject *none = PyObject_CallFunction(queue->trouble, "i", error);
    Py_XDECREF(none);
    return none != NULL;
}

/* ask(payload, mark, interface, hardware) -> (verdict, mark or -1, interface is Ethernet: 1, 0, or -1 for not asked,
 * whether tell() is to be called once the packet is answered) */
static bool answer_by_python(Queue *queue, const struct held *held, int *tell)
{
    int verdict, ethernet;
    long long mark;
    PyObject *answered = PyObject_CallFunction(
        queue->ask, "y#kky#", held->payload ? (const char *)held->payload : "", (Py_ssize_t)held->size,
        (unsigned long)held->mark, (unsigned long)held->interface, (const char *)held->hardware,
        (Py_ssize_t)(held->hardware ? sizeof((struct nfqnl_msg_packet_hw *)0)->hw_addr : 0));
    if (!answered)
        return false;
    bool good = PyArg_ParseTuple(answered, "iLip", &verdict, &mark, &ethernet, tell);
    Py_DECREF(answered);
    if (!good)
        return false;
    answer(queue, held->id, verdict, mark >= 0, (uint32_t)mark);
    if (ethernet >= 0) {
        unsigned place = 0;
        while (place < INTERFACES && queue->interfaces[place].number != held->interface)
            place++;
        if (place == INTERFACES)
            place = queue->next_interface++ % INTERFACES;
        queue->interfaces[place].number = held->interface;
        queue->interfaces[place].ethernet = ethernet;
        queue->interfaces[place].until_ns = queue->came_ns + TYPE_KEPT_NS;
    }
    return true;
}

/* Answers packets in their order. `thread` is this thread's state while it does without the interpreter's lock, which it
 * takes for a packet of Python's. false: a Python error is set, and the lock is held. */
static bool answer_all(Queue *queue, unsigned count, PyThreadState **thread)
{
    uint64_t now_ns = realtime_ns();
    for (unsigned i = 0;;) {
        road_lock();
        while (i < count && answer_here(queue, &queue->held[i], now_ns))
            i++;
        road_unlock();
        int error = flush(queue);
        if (i == count && !error)
            return true;
        PyEval_RestoreThread(*thread);
        int tell = 0;
        bool good = !error || say(queue, error);
        if (good && i < count)
            good = answer_by_python(queue, &queue->held[i++], &tell);
        if (good && tell) { /* whoever it wakes would take the processor, and the interpreter, before the answer is sent */
            *thread = PyEval_SaveThread();
            error = flush(queue);
            PyEval_RestoreThread(*thread);
            good = (!error || say(queue, error)) && call(queue->tell);
        }
        if (!good) {
            queue->failed = true;
            queue->failed_id = queue->held[count - 1].id;
            return false;
        }
        *thread = PyEval_SaveThread();
    }
}

/* The packets in what is left of a datagram, put behind those that are held already, up to BATCH. */
static unsigned add_held(Queue *queue, struct iovec *left, unsigned held)
{
    while (left->iov_len >= NLMSG_HDRLEN && held < BATCH) {
        const uint8_t *message = left->iov_base;
        struct nlmsghdr header;
        memcpy(&header, message, sizeof header);
        size_t length = header.nlmsg_len < left->iov_len ? header.nlmsg_len : left->iov_len; /* cut: what there is of it */
        if (length < NLMSG_HDRLEN)
            break;
        if (header.nlmsg_type == (NFNL_SUBSYS_QUEUE << 8 | NFQNL_MSG_PACKET) &&
            length >= NLMSG_HDRLEN + sizeof(struct nfgenmsg) && read_held(message, length, &queue->held[held])) {
            held++;
        } else if (header.nlmsg_type == NLMSG_ERROR && length >= NLMSG_HDRLEN + sizeof(int)) {
            int error;
            memcpy(&error, message + NLMSG_HDRLEN, sizeof error);
            add_to(&queue->verdict_errors, error != 0); /* the packet had gone: its interface went down */
        }
        size_t step = NLMSG_ALIGN(length) < left->iov_len ? NLMSG_ALIGN(length) : left->iov_len;
        left->iov_base = (uint8_t *)left->iov_base + step;
        left->iov_len -= step;
    }
    if (held < BATCH) /* else there may be more in it */
        left->iov_len = 0;
    return held;
}

/* Answers every packet in these datagrams, which have just come; they are empty then. As answer_all(). */
static bool take_all(Queue *queue, struct iovec *datagrams, unsigned count, PyThreadState **thread)
{
    bool good = true;
    unsigned held = 0;
    queue->came_ns = monotonic_ns();
    atomic_store(&queue->answering, ++queue->reads);
    for (unsigned i = 0; good && i < count;) {
        held = add_held(queue, &datagrams[i], held);
        i += !datagrams[i].iov_len;
        if (held == BATCH || (held && i == count)) {
            good = answer_all(queue, held, thread);
            held = 0;
        }
    }
    atomic_store(&queue->answering, 0);
    return good;
}

static PyObject *run(Queue *queue, PyObject *early)
{
    PyThreadState *thread;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(early); i++) {
        PyObject *datagram = Py_NewRef(PyList_GET_ITEM(early, i));
        bool good = true;
        if (PyBytes_Check(datagram)) {
            struct iovec bytes = {PyBytes_AS_STRING(datagram), (size_t)PyBytes_GET_SIZE(datagram)};
            thread = PyEval_SaveThread();
            good = take_all(queue, &bytes, 1, &thread);
            if (good)
                PyEval_RestoreThread(thread);
        }
        Py_DECREF(datagram);
        if (!good)
            return NULL;
    }
    thread = PyEval_SaveThread();
    while (!atomic_load(&queue->stopping)) {
        /* waits for the first packet as long as the socket's time-out says */
        int count = recvmmsg(queue->socket, queue->messages, BATCH, MSG_WAITFORONE, NULL);
        if (count >= 0) {
            struct iovec datagrams[BATCH];
            for (int i = 0; i < count; i++)
                datagrams[i] = (struct iovec){queue->datagrams[i], queue->messages[i].msg_len};
            if (!take_all(queue, datagrams, (unsigned)count, &thread))
                return NULL;
        } else if (errno == EINTR) {
            PyEval_RestoreThread(thread);
            if (PyErr_CheckSignals() < 0) /* only ever in the main thread */
                return NULL;
            thread = PyEval_SaveThread();
        } else if (errno != EAGAIN && errno != ENOBUFS) {
            PyEval_RestoreThread(thread);
            return PyErr_SetFromErrno(PyExc_OSError);
        }
    }
    PyEval_RestoreThread(thread);
    Py_RETURN_NONE;
}

static PyObject *queue_run(Queue *queue, PyObject *early)
{
    if (!PyList_Check(early)) {
        PyErr_SetString(PyExc_TypeError, "run() takes the list of what came before it");
        return NULL;
    }
    if (queue->running) {
        PyErr_SetString(PyExc_RuntimeError, "it is running already");
        return NULL;
    }
    queue->running = true;
    PyObject *none = run(queue, early);
    queue->running = false;
    return none;
}

/* ---- Python */

static PyObject *queue_new(PyTypeObject *type, PyObject *arguments, PyObject *Py_UNUSED(named))
{
    int socket;
    uint16_t number;
    PyObject *rules, *ask, *tell, *trouble;
    if (!PyArg_ParseTuple(arguments, "iO&O!OOO", &socket, to_u16, &number, &Rules_Type, &rules, &ask, &tell, &trouble))
        return NULL;
    Queue *queue = (Queue *)type->tp_alloc(type, 0);
    if (!queue)
        return NULL;
    queue->socket = socket;
    queue->number = number;
    queue->rules = (Rules *)Py_NewRef(rules);
    queue->ask = Py_NewRef(ask);
    queue->tell = Py_NewRef(tell);
    queue->trouble = Py_NewRef(trouble);
    for (unsigned i = 0; i < BATCH; i++) {
        queue->parts[i] = (struct iovec){queue->datagrams[i], DATAGRAM_MAX};
        queue->messages[i].msg_hdr = (struct msghdr){.msg_iov = &queue->parts[i], .msg_iovlen = 1};
    }
    return (PyObject *)queue;
}

static int queue_traverse(Queue *queue, visitproc visit, void *arg)
{
    Py_VISIT(queue->ask);
    Py_VISIT(queue->tell);
    Py_VISIT(queue->trouble);
    return 0;
}

static int queue_clear(Queue *queue)
{
    Py_CLEAR(queue->ask);
    Py_CLEAR(queue->tell);
    Py_CLEAR(queue->trouble);
    return 0;
}

static void queue_dealloc(Queue *queue)
{
    PyObject_GC_UnTrack(queue);
    queue_clear(queue);
    Py_XDECREF(queue->rules);
    Py_TYPE(queue)->tp_free((PyObject *)queue);
}

static PyObject *queue_stop(Queue *queue, PyObject *Py_UNUSED(none))
{
    atomic_store(&queue->stopping, true);
    Py_RETURN_NONE;
}

static PyObject *queue_answering(Queue *queue, PyObject *Py_UNUSED(none))
{
    return PyLong_FromUnsignedLongLong(atomic_load(&queue->answering));
}

static PyObject *queue_figures(Queue *queue, PyObject *Py_UNUSED(none))
{
    unsigned long long processed = figure(&queue->processed); /* first: the others are no less then */
    return Py_BuildValue("{sKsKsKsKsKsN}", "processed", processed, "accepted", figure(&queue->accepted), "dropped",
                         figure(&queue->dropped), "rejected", figure(&queue->rejected), "verdict_errors",
                         figure(&queue->verdict_errors), "by_state", reasons_read(queue->by_state));
}

static PyObject *queue_latency(Queue *queue, PyObject *Py_UNUSED(none)) { return latency_read(&queue->latency); }

static PyMethodDef methods[] = {
    {"run", (PyCFunction)queue_run, METH_O, "run(early): answer those datagrams, and what comes, until stop()."},
    {"stop", (PyCFunction)queue_stop, METH_NOARGS, "stop(): let run() end, when its socket's time-out is over."},
    {"answering", (PyCFunction)queue_answering, METH_NOARGS, "answering() -> the number of the read it is at, or 0."},
    {"figures", (PyCFunction)queue_figures, METH_NOARGS, "figures() -> what it has counted."},
    {"latency", (PyCFunction)queue_latency, METH_NOARGS, "latency() -> ({step: packets}, largest)"},
    {NULL, NULL, 0, NULL},
};

PyTypeObject Queue_Type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "glacic.native._road.Queue",
    .tp_doc = "Queue(socket, number, rules, ask, tell, trouble): the loop of one queue.",
    .tp_basicsize = sizeof(Queue),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_new = queue_new,
    .tp_traverse = (traverseproc)queue_traverse,
    .tp_clear = (inquiry)queue_clear,
    .tp_dealloc = (destructor)queue_dealloc,
    .tp_methods = methods,
};
