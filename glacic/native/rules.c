/* Steps 3 to 5 of road 2, compiled: which policy asks, and the state of a packet's flow under it.
 *
 * A Rules object is one for the life of a service; `set` replaces everything in it under the lock, so a packet is
 * answered by the old configuration or by the new one. Without policies (a new one, or `clear`) every packet is Python's.
 * What the fields of the packet mark mean is said in glacic/firewall/claims.py; the numbers come from there.
 */
#include "road.h"

#include <string.h>

struct policy {
    uint32_t number, name; /* in the packet mark; the table's for its name */
    bool by_mac, destination, rejects;
    const char *text; /* its name, as in a log prefix */
    size_t length;
};

struct configuration {
    Table *table;
    PyObject *names; /* keeps the policies' texts */
    struct policy *policies;
    struct policy **by_number; /* up to `highest`, NULL where there is none */
    struct policy **by_name;   /* sorted; of two of a name the one with the lower number */
    uint32_t names_count, highest;
    uint32_t field, asked, reject, number_low, low_numbers; /* claims.py */
    bool window;
};

struct rules {
    PyObject_HEAD
    struct configuration *now; /* NULL: nothing is answered here */
};

static uint32_t number_in(const struct configuration *now, uint32_t mark)
{
    if (!(mark & now->asked))
        return 0;
    uint32_t low = (mark & now->number_low) >> __builtin_ctz(now->number_low);
    return low && now->highest > now->low_numbers ? low + now->low_numbers * (mark >> 24) : low;
}

const struct policy *rules_asked(const Rules *rules, uint32_t mark, uint32_t *others)
{
    const struct configuration *now = rules->now;
    if (!now)
        return NULL;
    *others = mark & ~now->field;
    uint32_t number = number_in(now, mark);
    return number <= now->highest ? now->by_number[number] : NULL;
}

static int compare(const char *one, size_t one_length, const char *other, size_t other_length)
{
    int order = memcmp(one, other, one_length < other_length ? one_length : other_length);
    return order ? order : (one_length > other_length) - (one_length < other_length);
}

const struct policy *rules_logged(const Rules *rules, uint32_t mark, const char *prefix, size_t length)
{
    const struct configuration *now = rules->now;
    if (!now)
        return NULL;
    if (!prefix) /* a packet without */
        prefix = "";
    while (length && !prefix[length - 1])
        length--;
    if (length >= 2 && !memcmp(prefix + length - 2, ": ", 2))
        length -= 2;
    uint32_t number = number_in(now, mark);
    const struct policy *marked = number <= now->highest ? now->by_number[number] : NULL;
    if (marked && !compare(marked->text, marked->length, prefix, length))
        return marked;
    uint32_t low = 0, high = now->names_count;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        const struct policy *policy = now->by_name[middle];
        int order = compare(policy->text, policy->length, prefix, length);
        if (!order)
            return policy;
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

enum state rules_state(const Rules *rules, const struct policy *policy, const uint8_t *payload, size_t size,
                       const uint8_t *mac, uint64_t now_ns)
{
    struct packet packet;
    struct key key;
    if (!decode(payload, size, &packet))
        return NO_STATE;
    bool by_mac = mac && policy->by_mac;
    make_key(&key, policy->name, packet.protocol, packet.port, by_mac ? mac : packet.source,
             by_mac ? MAC_LENGTH : packet.address_length, packet.destination,
             policy->destination ? packet.address_length : 0);
    return table_hit(rules->now->table, &key, by_mac ? packet.source : NULL, packet.address_length, now_ns);
}

bool rules_by_mac(const struct policy *policy) { return policy->by_mac; }
bool rules_rejects(const struct policy *policy) { return policy->rejects; }
bool rules_window(const Rules *rules) { return rules->now->window; }
uint32_t rules_reject_bit(const Rules *rules) { return rules->now->reject; }

/* ---- Python */

static void discard(struct configuration *old)
{
    if (!old)
        return;
    Py_XDECREF(old->table);
    Py_XDECREF(old->names);
    PyMem_Free(old->policies);
    PyMem_Free(old->by_number);
    PyMem_Free(old->by_name);
    PyMem_Free(old);
}

static void put_in_force(Rules *rules, struct configuration *new)
{
    road_lock();
    struct configuration *old = rules->now;
    rules->now = new;
    road_unlock();
    discard(old);
}

static int by_name(const void *one, const void *other)
{
    const struct policy *a = *(struct policy *const *)one, *b = *(struct policy *const *)other;
    int order = compare(a->text, a->length, b->text, b->length);
    return order ? order : (a->number > b->number) - (a->number < b->number);
}

/* One policy: (number, name, by_mac, with_destination, rejects). */
static bool read_policy(struct configuration *new, PyObject *row, struct policy *policy)
{
    PyObject *name;
    int by_mac, destination, rejects;
    Py_ssize_t length = 0;
    if (!PyTuple_Check(row)) {
        PyErr_SetString(PyExc_TypeError, "a policy is a tuple");
        return false;
    }
    if (!PyArg_ParseTuple(row, "O&Uppp", to_u32, &policy->number, &name, &by_mac, &destination, &rejects))
        return false;
    if (!policy->number || policy->number > new->highest) {
        PyErr_SetString(PyExc_ValueError, "a policy's number is at least 1 and at most the highest");
        return false;
    }
    policy->text = PyUnicode_AsUTF8AndSize(name, &length);
    policy->name = policy->text ? table_number(new->table, name) : 0;
    policy->length = (size_t)length;
    policy->by_mac = by_mac;
    policy->destination = destination;
    policy->rejects = rejects;
    return policy->name && PyList_Append(new->names, name) == 0;
}

static bool fill(struct configuration *new, PyObject *rows)
{
    Py_ssize_t count = PyTuple_GET_SIZE(rows);
    new->names = PyList_New(0);
    new->policies = PyMem_Calloc((size_t)count + 1, sizeof *new->policies);
    new->by_number = PyMem_Calloc((size_t)new->highest + 1, sizeof *new->by_number);
    new->by_name = PyMem_Calloc((size_t)count + 1, sizeof *new->by_name);
    if (!new->names || !new->policies || !new->by_number || !new->by_name) {
        PyErr_NoMemory();
        return false;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        if (!read_policy(new, PyTuple_GET_ITEM(rows, i), &new->policies[i]))
            return false;
        new->by_number[new->policies[i].number] = &new->policies[i];
        new->by_name[i] = &new->policies[i];
    }
    qsort(new->by_name, (size_t)count, sizeof *new->by_name, by_name);
    for (Py_ssize_t i = 0; i < count; i++) { /* the first of each name */
        struct policy *next = new->by_name[i];
        if (!new->names_count || new->by_name[new->names_count - 1]->name != next->name)
            new->by_name[new->names_count++] = next;
    }
    return true;
}

enum { HIGHEST_MAX = 1 << 16 };

static PyObject *rules_set(Rules *rules, PyObject *arguments, PyObject *named)
{
    static char *words[] = {"table", "policies", "highest_number", "window", "field", "asked", "reject", "number_low",
                            "low_numbers", NULL};
    PyObject *table, *rows;
    int window;
    struct configuration *new = PyMem_Calloc(1, sizeof *new);
    if (!new)
        return PyErr_NoMemory();
    if (!PyArg_ParseTupleAndKeywords(arguments, named, "O!O!O&pO&O&O&O&O&", words, &Table_Type, &table, &PyTuple_Type,
                                     &rows, to_u32, &new->highest, &window, to_u32, &new->field, to_u32, &new->asked,
                                     to_u32, &new->reject, to_u32, &new->number_low, to_u32, &new->low_numbers)) {
        PyMem_Free(new);
        return NULL;
    }
    new->table = (Table *)Py_NewRef(table);
    new->window = window;
    if (new->highest > HIGHEST_MAX || !new->number_low)
        PyErr_SetString(PyExc_ValueError, "no such numbers");
    else if (fill(new, rows)) {
        put_in_force(rules, new);
        Py_RETURN_NONE;
    }
    discard(new);
    return NULL;
}

static PyObject *rules_clear(Rules *rules, PyObject *Py_UNUSED(none))
{
    put_in_force(rules, NULL);
    Py_RETURN_NONE;
}

/* state(mark, payload, mac, now_ns) -> the flow's state, with the packet counted; 0 where Python is to be asked. */
static PyObject *rules_state_of(Rules *rules, PyObject *arguments)
{
    uint32_t mark, others;
    Py_buffer payload, mac;
    unsigned long long now_ns;
    enum state state = NO_STATE;
    if (!PyArg_ParseTuple(arguments, "O&y*z*K", to_u32, &mark, &payload, &mac, &now_ns))
        return NULL;
    road_lock();
    const struct policy *policy = rules_asked(rules, mark, &others);
    if (policy && (!mac.buf || mac.len == MAC_LENGTH))
        state = rules_state(rules, policy, payload.buf, (size_t)payload.len, mac.buf, now_ns);
    road_unlock();
    PyBuffer_Release(&payload);
    PyBuffer_Release(&mac);
    return PyLong_FromLong(state);
}

static void rules_dealloc(Rules *rules)
{
    discard(rules->now);
    Py_TYPE(rules)->tp_free((PyObject *)rules);
}

static PyMethodDef methods[] = {
    {"set", (PyCFunction)(void (*)(void))rules_set, METH_VARARGS | METH_KEYWORDS,
     "set(table, policies, highest_number, window, field, asked, reject, number_low, low_numbers): from now on these."},
    {"state", (PyCFunction)rules_state_of, METH_VARARGS,
     "state(mark, payload, mac, now_ns): what a reader's loop would find, and the packet counted; 0: it would ask."},
    {"clear", (PyCFunction)rules_clear, METH_NOARGS, "clear(): from now on every packet is Python's."},
    {NULL, NULL, 0, NULL},
};

PyTypeObject Rules_Type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "glacic.native._road.Rules",
    .tp_doc = "Rules(): the policies in force.",
    .tp_basicsize = sizeof(Rules),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = PyType_GenericNew,
    .tp_dealloc = (destructor)rules_dealloc,
    .tp_methods = methods,
};
