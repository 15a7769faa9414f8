/* Step 5 of road 2, compiled: whether the database may have a flow, so that a new one need not be looked up on disk.
 *
 * A Bloom filter (Bloom 1970) in blocks of one cache line: a key sets PROBES bits of its block. "No" is certain, "yes" is
 * not. Keys are never taken out: one that was deleted costs a look-up, no more. Filled beyond what it was made for it
 * says "yes" more often, and is right all the same. The hash is keyed by a random seed: senders choose the keys.
 *
 * Belongs to glacic/learning/store.py, which adds a key before it is committed. Called with the interpreter's lock.
 */
#include "road.h"

#include <string.h>
#include <sys/random.h>

enum { PROBES = 6, BITS_PER_KEY = 16 }; /* 1 in 500 is a false "yes" */
enum { NAME_MAX_BYTES = 256 };          /* of a policy's name; longer ones are hashed by their beginning */

struct block {
    uint64_t words[8];
};

typedef struct {
    PyObject_HEAD
    struct block *blocks;
    uint64_t mask, seed;
} Known;

static uint64_t mix(uint64_t hash, const uint8_t *data, size_t size)
{
    while (size) {
        uint64_t word = 0;
        size_t part = size < sizeof word ? size : sizeof word;
        memcpy(&word, data, part);
        unsigned __int128 product = (unsigned __int128)(hash ^ word) * 0x9e3779b97f4a7c15u;
        hash = (uint64_t)product ^ (uint64_t)(product >> 64) ^ part;
        data += part;
        size -= part;
    }
    return hash;
}

static bool hash_of(const Known *known, PyObject *key, uint64_t *hash)
{
    const char *name, *source, *destination;
    Py_ssize_t name_length, source_length, destination_length;
    unsigned char protocol;
    uint16_t port;
    if (!PyTuple_Check(key)) {
        PyErr_SetString(PyExc_TypeError, "a flow key is a tuple");
        return false;
    }
    if (!PyArg_ParseTuple(key, "s#y#bO&y#", &name, &name_length, &source, &source_length, &protocol, to_u16, &port,
                          &destination, &destination_length))
        return false;
    uint8_t numbers[] = {protocol, (uint8_t)(port >> 8), (uint8_t)port, (uint8_t)source_length};
    uint64_t mixed = mix(known->seed, numbers, sizeof numbers);
    mixed = mix(mixed, (const uint8_t *)source, (size_t)source_length);
    mixed = mix(mixed, (const uint8_t *)destination, (size_t)destination_length);
    *hash = mix(mixed, (const uint8_t *)name, (size_t)(name_length < NAME_MAX_BYTES ? name_length : NAME_MAX_BYTES));
    return true;
}

/* The n-th bit of a key in its block: 9 bits of a second hash for each. */
static unsigned bit(uint64_t hash, unsigned n) { return (unsigned)((hash * 0xbf58476d1ce4e5b9u) >> (1 + 9 * n)) & 511; }

static PyObject *known_add(Known *known, PyObject *key)
{
    uint64_t hash;
    if (!hash_of(known, key, &hash))
        return NULL;
    struct block *block = &known->blocks[hash & known->mask];
    for (unsigned n = 0; n < PROBES; n++)
        block->words[bit(hash, n) >> 6] |= (uint64_t)1 << (bit(hash, n) & 63);
    Py_RETURN_NONE;
}

static PyObject *known_may_have(Known *known, PyObject *key)
{
    uint64_t hash;
    if (!hash_of(known, key, &hash))
        return NULL;
    const struct block *block = &known->blocks[hash & known->mask];
    for (unsigned n = 0; n < PROBES; n++)
        if (!(block->words[bit(hash, n) >> 6] >> (bit(hash, n) & 63) & 1))
            Py_RETURN_FALSE;
    Py_RETURN_TRUE;
}

static PyObject *known_new(PyTypeObject *type, PyObject *arguments, PyObject *Py_UNUSED(named))
{
    Py_ssize_t keys;
    if (!PyArg_ParseTuple(arguments, "n", &keys))
        return NULL;
    if (keys < 0 || keys > (Py_ssize_t)1 << 32) {
        PyErr_SetString(PyExc_ValueError, "made for 2**32 keys at most");
        return NULL;
    }
    Known *known = (Known *)type->tp_alloc(type, 0);
    if (!known)
        return NULL;
    uint64_t blocks = 1;
    while (blocks * sizeof(struct block) * 8 < (uint64_t)keys * BITS_PER_KEY)
        blocks *= 2;
    known->mask = blocks - 1;
    known->blocks = aligned_alloc(sizeof(struct block), blocks * sizeof(struct block));
    if (!known->blocks || getrandom(&known->seed, sizeof known->seed, 0) != sizeof known->seed) {
        Py_DECREF(known);
        return PyErr_NoMemory();
    }
    memset(known->blocks, 0, blocks * sizeof(struct block));
    return (PyObject *)known;
}

static void known_dealloc(Known *known)
{
    free(known->blocks);
    Py_TYPE(known)->tp_free((PyObject *)known);
}

static PyMethodDef methods[] = {
    {"add", (PyCFunction)known_add, METH_O, "add(key): from now on the answer for it is yes."},
    {"may_have", (PyCFunction)known_may_have, METH_O, "may_have(key) -> False where it was certainly not added."},
    {NULL, NULL, 0, NULL},
};

PyTypeObject Known_Type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "glacic.native._road.Known",
    .tp_doc = "Known(keys): a set that may have more than was added; made for so many keys.",
    .tp_basicsize = sizeof(Known),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = known_new,
    .tp_dealloc = (destructor)known_dealloc,
    .tp_methods = methods,
};
