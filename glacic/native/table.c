/* Step 4 of road 2, compiled: the flows that packet threads answer without Python. In front of glacic/learning/cache.py.
 *
 * A bounded hash table from the bytes of a flow's key to its state. Python puts a flow in when a second packet of it has
 * come, and takes it out, under the lock, whenever anything about it changes or the cache lets go of it: what is in here
 * is in the cache's LRU too, with the same state. What packets change (how many, when the last) is added up in the slot;
 * the cache collects it: `drain` for the writer, `collect` and `remove` for one flow.
 *
 * Open addressing with linear probing over slot numbers, at most half full; a removal shifts back what stands behind it,
 * so there are no tombstones. The hash is keyed by random numbers, because whoever sends the packets chooses the keys.
 */
#include "road.h"

#include <string.h>
#include <sys/random.h>

enum { ADDRESSES = 4 }; /* that a slot knows; a flow that is seen from more of them asks Python each time */

struct slot {
    struct key key;
    uint32_t hash;
    uint32_t next_free;
    PyObject *entry; /* the cache's; NULL: a free slot */
    uint64_t packets, last_seen_ns; /* since they were collected */
    uint8_t state;
    bool listed; /* its number is in `changed` */
    uint8_t addresses;
    uint8_t lengths[ADDRESSES];
    uint8_t address[ADDRESSES][ADDRESS_MAX];
};

struct table {
    PyObject_HEAD
    PyObject *numbers; /* policy name -> number, from 1 */
    struct slot *slots;
    uint32_t capacity, used, fresh, free; /* slots; in use; the first never used; the first free one + 1, 0 for none */
    uint32_t *index, mask;                /* slot number + 1, 0 for none */
    uint32_t *changed, first, changes;    /* a ring of `capacity`: slots with packets that are not collected */
    uint32_t round;                       /* how many of them `drain` has still to look at, if it is `draining` */
    bool draining;
    uint64_t seed, factor, hits;
};

static uint32_t hash_of(const Table *table, const struct key *key)
{
    uint64_t words[(sizeof *key + 7) / 8] = {0}, hash = table->seed;
    memcpy(words, key, sizeof *key);
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        unsigned __int128 product = (unsigned __int128)(hash ^ words[i]) * table->factor;
        hash = (uint64_t)product ^ (uint64_t)(product >> 64) ^ table->seed;
    }
    return (uint32_t)(hash ^ hash >> 32);
}

/* The place in the index where the key is, or the free one where it would be. */
static uint32_t place_of(const Table *table, const struct key *key, uint32_t hash)
{
    uint32_t place = hash & table->mask;
    while (table->index[place]) {
        const struct slot *slot = &table->slots[table->index[place] - 1];
        if (slot->hash == hash && !memcmp(&slot->key, key, sizeof *key))
            break;
        place = (place + 1) & table->mask;
    }
    return place;
}

static struct slot *find(const Table *table, const struct key *key)
{
    if (!table->used)
        return NULL;
    uint32_t number = table->index[place_of(table, key, hash_of(table, key))];
    return number ? &table->slots[number - 1] : NULL;
}

static void count(Table *table, struct slot *slot, uint64_t now_ns)
{
    slot->packets++;
    slot->last_seen_ns = now_ns;
    if (!slot->listed) {
        slot->listed = true;
        uint32_t place = table->first + table->changes++;
        table->changed[place < table->capacity ? place : place - table->capacity] = (uint32_t)(slot - table->slots);
    }
}

enum state table_hit(Table *table, const struct key *key, const uint8_t *address, size_t length, uint64_t now_ns)
{
    struct slot *slot = find(table, key);
    if (!slot)
        return NO_STATE;
    if (address) {
        unsigned i = 0;
        while (i < slot->addresses && (slot->lengths[i] != length || memcmp(slot->address[i], address, length)))
            i++;
        if (i == slot->addresses)
            return NO_STATE; /* Python notes it */
    }
    count(table, slot, now_ns);
    table->hits++;
    return slot->state;
}

static struct slot *take_slot(Table *table)
{
    struct slot *slot;
    if (table->free) {
        slot = &table->slots[table->free - 1];
        table->free = slot->next_free;
    } else if (table->fresh < table->capacity) {
        slot = &table->slots[table->fresh++];
    } else {
        return NULL;
    }
    table->used++;
    return slot;
}

/* Returns the entry, which the caller gives up once it does not hold the lock. */
static PyObject *release_slot(Table *table, struct slot *slot)
{
    PyObject *entry = slot->entry;
    uint32_t hole = place_of(table, &slot->key, slot->hash);
    for (uint32_t place = (hole + 1) & table->mask; table->index[place]; place = (place + 1) & table->mask) {
        uint32_t home = table->slots[table->index[place] - 1].hash & table->mask;
        if (((place - home) & table->mask) >= ((place - hole) & table->mask)) { /* may stand in the hole */
            table->index[hole] = table->index[place];
            hole = place;
        }
    }
    table->index[hole] = 0;
    slot->entry = NULL;
    slot->packets = 0;
    slot->next_free = table->free;
    table->free = (uint32_t)(slot - table->slots) + 1;
    table->used--;
    return entry;
}

/* ---- Python */

/* 0: no flow of this policy was ever in here, or a Python error is set. */
static uint32_t known_number(Table *table, PyObject *name)
{
    PyObject *known = PyDict_GetItemWithError(table->numbers, name);
    return known ? (uint32_t)PyLong_AsUnsignedLong(known) : 0;
}

uint32_t table_number(Table *table, PyObject *name)
{
    uint32_t number = known_number(table, name);
    if (number || PyErr_Occurred())
        return number;
    number = (uint32_t)PyDict_Size(table->numbers) + 1;
    PyObject *value = PyLong_FromUnsignedLong(number);
    if (!value || PyDict_SetItem(table->numbers, name, value) < 0)
        number = 0;
    Py_XDECREF(value);
    return number;
}

/* A FlowKey, or a tuple like it: policy, source, protocol, port, destination. `number` gives its policy's number. */
static bool read_key(Table *table, PyObject *object, uint32_t (*number)(Table *, PyObject *), struct key *key)
{
    PyObject *policy;
    const char *source, *destination;
    Py_ssize_t source_length, destination_length;
    unsigned char protocol;
    uint16_t port;
    if (!PyTuple_Check(object)) {
        PyErr_SetString(PyExc_TypeError, "a flow key is a tuple");
        return false;
    }
    if (!PyArg_ParseTuple(object, "Uy#bO&y#", &policy, &source, &source_length, &protocol, to_u16, &port, &destination,
                          &destination_length))
        return false;
    if (source_length > ADDRESS_MAX || destination_length > ADDRESS_MAX) {
        PyErr_SetString(PyExc_ValueError, "an address is at most 16 bytes");
        return false;
    }
    make_key(key, number(table, policy), protocol, port, (const uint8_t *)source, (size_t)source_length,
             (const uint8_t *)destination, (size_t)destination_length);
    return key->policy || !PyErr_Occurred();
}

static bool allocate(Table *table, uint32_t capacity)
{
    uint32_t places = 2;
    while (places < 2 * (uint64_t)capacity)
        places *= 2;
    struct slot *slots = calloc(capacity, sizeof *slots);
    uint32_t *index = calloc(places, sizeof *index), *changed = calloc(capacity, sizeof *changed);
    if (!slots || !index || !changed) {
        free(slots);
        free(index);
        free(changed);
        PyErr_NoMemory();
        return false;
    }
    road_lock();
    struct slot *old_slots = table->slots;
    uint32_t *old_index = table->index, *old_changed = table->changed;
    table->slots = slots;
    table->index = index;
    table->changed = changed;
    table->capacity = capacity;
    table->mask = places - 1;
    table->used = table->fresh = table->free = table->first = table->changes = table->round = 0;
    table->draining = false;
    road_unlock();
    free(old_slots);
    free(old_index);
    free(old_changed);
    return true;
}

enum { CAPACITY_MAX = 1 << 30 };

static bool read_capacity(PyObject *arguments, uint32_t *capacity)
{
    Py_ssize_t wanted;
    if (!PyArg_ParseTuple(arguments, "n", &wanted))
        return false;
    if (wanted < 1 || wanted > CAPACITY_MAX) {
        PyErr_SetString(PyExc_ValueError, "a table holds 1 to 2**30 flows");
        return false;
    }
    *capacity = (uint32_t)wanted;
    return true;
}

static PyObject *table_new(PyTypeObject *type, PyObject *arguments, PyObject *Py_UNUSED(named))
{
    uint32_t capacity;
    if (!read_capacity(arguments, &capacity))
        return NULL;
    Table *table = (Table *)type->tp_alloc(type, 0);
    if (!table)
        return NULL;
    uint64_t random[2];
    table->numbers = PyDict_New();
    if (!table->numbers || getrandom(random, sizeof random, 0) != sizeof random || !allocate(table, capacity)) {
        if (!PyErr_Occurred())
            PyErr_SetFromErrno(PyExc_OSError);
        Py_DECREF(table);
        return NULL;
    }
    table->seed = random[0];
    table->factor = random[1] | 1;
    return (PyObject *)table;
}

static void table_dealloc(Table *table)
{
    for (uint32_t i = 0; i < table->fresh; i++)
        Py_XDECREF(table->slots[i].entry);
    free(table->slots);
    free(table->index);
    free(table->changed);
    Py_XDECREF(table->numbers);
    Py_TYPE(table)->tp_free((PyObject *)table);
}

static PyObject *table_put(Table *table, PyObject *arguments)
{
    PyObject *object, *entry, *addresses;
    struct key key;
    int state;
    if (!PyArg_ParseTuple(arguments, "OOiO!", &object, &entry, &state, &PyTuple_Type, &addresses) ||
        !read_key(table, object, table_number, &key))
        return NULL;
    if (state <= NO_STATE || state >= STATES) {
        PyErr_SetString(PyExc_ValueError, "no such state");
        return NULL;
    }
    PyObject *old = NULL;
    uint32_t hash = hash_of(table, &key);
    road_lock();
    uint32_t place = place_of(table, &key, hash);
    struct slot *slot = table->index[place] ? &table->slots[table->index[place] - 1] : take_slot(table);
    if (slot) { /* else it is full, and Python goes on answering for this flow */
        old = slot->entry;
        if (!old) {
            slot->key = key;
            slot->hash = hash;
            slot->packets = slot->last_seen_ns = 0;
            table->index[place] = (uint32_t)(slot - table->slots) + 1;
        }
        slot->entry = Py_NewRef(entry);
        slot->state = (uint8_t)state;
        slot->addresses = 0;
        for (Py_ssize_t i = PyTuple_GET_SIZE(addresses); i-- > 0 && slot->addresses < ADDRESSES;) { /* newest first */
            PyObject *address = PyTuple_GET_ITEM(addresses, i);
            if (!PyBytes_Check(address) || PyBytes_GET_SIZE(address) > ADDRESS_MAX)
                continue;
            slot->lengths[slot->addresses] = (uint8_t)PyBytes_GET_SIZE(address);
            memcpy(slot->address[slot->addresses++], PyBytes_AS_STRING(address), (size_t)PyBytes_GET_SIZE(address));
        }
    }
    road_unlock();
    Py_XDECREF(old);
    Py_RETURN_NONE;
}

/* What was counted of one flow, (packets, last_seen_ns), and no more from here on; (0, 0) where it is not in here. */
static PyObject *collect_one(Table *table, PyObject *object, bool remove)
{
    struct key key;
    if (!read_key(table, object, known_number, &key))
        return NULL;
    unsigned long long packets = 0, last_seen_ns = 0;
    PyObject *entry = NULL;
    road_lock();
    struct slot *slot = find(table, &key);
    if (slot) {
        packets = slot->packets;
        last_seen_ns = slot->last_seen_ns;
        slot->packets = 0;
        if (remove)
            entry = release_slot(table, slot);
    }
    road_unlock();
    Py_XDECREF(entry);
    return Py_BuildValue("(KK)", packets, last_seen_ns);
}

static PyObject *table_collect(Table *table, PyObject *key) { return collect_one(table, key, false); }
static PyObject *table_remove(Table *table, PyObject *key) { return collect_one(table, key, true); }

enum { DRAIN_MAX = 64 }; /* flows collected under one lock: a microsecond or two that a packet may have to wait */

/* Called again until it gives nothing: then everything is collected that had been counted at the first call. What is
 * counted meanwhile waits for the next time, else a flood would keep the caller here for as long as it lasts. */

static PyObject *table_drain(Table *table, PyObject *Py_UNUSED(none))
{
    struct {
        PyObject *entry;
        uint64_t packets, last_seen_ns;
    } found[DRAIN_MAX];
    unsigned number = 0;
    road_lock();
    if (!table->draining)
        table->round = table->changes;
    while (table->round && number < DRAIN_MAX) {
        struct slot *slot = &table->slots[table->changed[table->first]];
        table->first = table->first + 1 < table->capacity ? table->first + 1 : 0;
        table->changes--;
        table->round--;
        slot->listed = false;
        if (!slot->entry || !slot->packets)
            continue;
        found[number].entry = Py_NewRef(slot->entry);
        found[number].packets = slot->packets;
        found[number++].last_seen_ns = slot->last_seen_ns;
        slot->packets = 0;
    }
    table->draining = number > 0;
    road_unlock();
    PyObject *list = PyList_New(number);
    for (unsigned i = 0; i < number; i++) {
        PyObject *row = list ? Py_BuildValue("(OKK)", found[i].entry, (unsigned long long)found[i].packets,
                                             (unsigned long long)found[i].last_seen_ns)
                             : NULL;
        Py_DECREF(found[i].entry);
        if (row)
            PyList_SET_ITEM(list, i, row);
        else
            Py_CLEAR(list);
    }
    return list;
}

static PyObject *table_resize(Table *table, PyObject *arguments)
{
    uint32_t capacity;
    if (!read_capacity(arguments, &capacity))
        return NULL;
    if (table->used) {
        PyErr_SetString(PyExc_RuntimeError, "only an empty table is resized: what it has counted would be lost");
        return NULL;
    }
    return allocate(table, capacity) ? Py_NewRef(Py_None) : NULL;
}

static Py_ssize_t table_length(PyObject *table) { return (Py_ssize_t)((Table *)table)->used; }

static PyObject *table_hits(Table *table, void *Py_UNUSED(none))
{
    road_lock();
    unsigned long long hits = table->hits;
    road_unlock();
    return PyLong_FromUnsignedLongLong(hits);
}

static PyMethodDef methods[] = {
    {"put", (PyCFunction)table_put, METH_VARARGS, "put(key, entry, state, addresses): answer for this flow."},
    {"collect", (PyCFunction)table_collect, METH_O, "collect(key) -> (packets, last_seen_ns) since the last time."},
    {"remove", (PyCFunction)table_remove, METH_O, "remove(key) -> as collect; Python answers for it from now on."},
    {"drain", (PyCFunction)table_drain, METH_NOARGS, "drain() -> [(entry, packets, last_seen_ns), ...], some of them."},
    {"resize", (PyCFunction)table_resize, METH_VARARGS, "resize(capacity): of an empty table."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef properties[] = {
    {"hits", (getter)table_hits, NULL, "Packets answered from here.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PySequenceMethods sequence = {.sq_length = table_length};

PyTypeObject Table_Type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "glacic.native._road.Table",
    .tp_doc = "Table(capacity): the flows that packet threads answer without Python.",
    .tp_basicsize = sizeof(Table),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = table_new,
    .tp_dealloc = (destructor)table_dealloc,
    .tp_methods = methods,
    .tp_getset = properties,
    .tp_as_sequence = &sequence,
};
