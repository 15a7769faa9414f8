/* Road 2, compiled: what the files of this folder share. road.c is the module, and says what it is for.
 *
 * One lock, for tables and rules. Packet threads take it without the interpreter's lock, for a few look-ups, and wait for
 * nothing else while they hold it: so whoever holds the interpreter's lock may wait for it.
 */
#ifndef GLACIC_ROAD_H
#define GLACIC_ROAD_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdbool.h>
#include <stdint.h>

#pragma GCC visibility push(hidden) /* no function of this name in another library is called in place of one of these */

void road_lock(void);
void road_unlock(void);

/* For "O&" in PyArg_Parse...(): a number that fits, else an error; "H" and "I" take any number and cut it. */
int to_u16(PyObject *number, void *to);
int to_u32(PyObject *number, void *to);

/* ---- flow.c: the key of a flow, and the part of a packet that makes it */

enum { MAC_LENGTH = 6, ADDRESS_MAX = 16 };

/* What decode() in glacic/learning/packet.py reads of a TCP or UDP packet. Addresses point into the packet. */
struct packet {
    const uint8_t *source, *destination;
    uint8_t address_length; /* 4 or 16 */
    uint8_t protocol;
    uint16_t source_port, port; /* host byte order */
    bool first, ends;
};

/* A FlowKey. Compared and hashed as bytes, so every one of them is set. */
struct key {
    uint32_t policy; /* the table's number for the policy's name */
    uint16_t port;
    uint8_t protocol;
    uint8_t source_length, destination_length;
    uint8_t unused[3];
    uint8_t source[ADDRESS_MAX];
    uint8_t destination[ADDRESS_MAX];
};

/* Plain TCP or UDP over IPv4 or IPv6, whole enough: true. Anything else, errors too, is Python's. */
bool decode(const uint8_t *data, size_t size, struct packet *packet);

/* Lengths are at most ADDRESS_MAX; a destination of length 0 is none. */
void make_key(struct key *key, uint32_t policy, uint8_t protocol, uint16_t port, const uint8_t *source,
              size_t source_length, const uint8_t *destination, size_t destination_length);

/* ---- table.c: the flows that are answered without Python */

enum state { NO_STATE, PENDING, ALLOWED, DENIED, IGNORED, STATES };

typedef struct table Table;
extern PyTypeObject Table_Type;

/* Under the lock: the state of the packet's flow, with the packet counted; NO_STATE where Python is to be asked.
 * address: where a packet came from whose flow's source is a MAC, else NULL. */
enum state table_hit(Table *table, const struct key *key, const uint8_t *address, size_t length, uint64_t now_ns);

/* With the interpreter's lock: the table's number for a policy's name. 0: a Python error is set. */
uint32_t table_number(Table *table, PyObject *name);

/* ---- rules.c: the policies in force, which a reload replaces under the lock */

typedef struct rules Rules;
extern PyTypeObject Rules_Type;

struct policy;

/* All of these under the lock. What they return is good for as long as it is held. */

/* The policy that a packet mark names, NULL for none; `others` are the bits that are not the hook's. */
const struct policy *rules_asked(const Rules *rules, uint32_t mark, uint32_t *others);

/* The policy that a log prefix ("lan_wan: ") names, in the variant that the mark names; NULL for none. */
const struct policy *rules_logged(const Rules *rules, uint32_t mark, const char *prefix, size_t length);

/* The state of a packet's flow, with the packet counted. mac: NULL for none. */
enum state rules_state(const Rules *rules, const struct policy *policy, const uint8_t *payload, size_t size,
                       const uint8_t *mac, uint64_t now_ns);

bool rules_by_mac(const struct policy *policy);
bool rules_rejects(const struct policy *policy);
bool rules_window(const Rules *rules); /* whether accepted packets are counted by connection, which Python does */
uint32_t rules_reject_bit(const Rules *rules);

/* ---- figures.c: what a reader measures, and the netlink that both read */

/* Figures are added to by one reader's thread and read by any; who reads one sees what was done before it was added to. */
static inline void add_to(uint64_t *figure, uint64_t more)
{
    __atomic_store_n(figure, *figure + more, __ATOMIC_RELEASE);
}

static inline unsigned long long figure(const uint64_t *figure) { return __atomic_load_n(figure, __ATOMIC_ACQUIRE); }

enum { LATENCY_STEPS = 512 };

struct latency {
    uint64_t steps[LATENCY_STEPS];
    uint64_t largest;
};

void latency_add(struct latency *latency, uint64_t duration_ns, uint64_t packets);
PyObject *latency_read(const struct latency *latency); /* ({step: packets}, largest) */
PyObject *reasons_read(const uint64_t *by_state);      /* (0, pending, allowed, denied, ignored) */

uint64_t monotonic_ns(void);
uint64_t realtime_ns(void);

/* The attributes of one message: `next` steps to the next one, false at the end or where it is not whole. */
struct attribute {
    const uint8_t *at, *end; /* what is still to be read */
    unsigned type;
    const uint8_t *data;
    size_t length;
};
bool next_attribute(struct attribute *attribute);

uint32_t be32(const uint8_t *at);
unsigned be16(const uint8_t *at);

/* ---- known.c: what the database may have */

extern PyTypeObject Known_Type;

/* ---- queue.c, log.c: the readers */

extern PyTypeObject Queue_Type, Log_Type;

#pragma GCC visibility pop

#endif
