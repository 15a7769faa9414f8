/* The module glacic.native._road: what a packet needs whose flow is in the cache, compiled.
 *
 *     flow.c     bytes of a plain packet -> the key of its flow
 *     table.c    key -> state, with the packet counted
 *     rules.c    packet mark or log prefix -> policy
 *     known.c    whether the database may have a flow
 *     queue.c    the loop of the inline reader
 *     log.c      the loop of the reader of a log group
 *     figures.c  histogram, clocks, netlink attributes
 *
 * Everything else is decided in Python, by the same code as without this module: whatever is not a known flow's plain
 * packet is put to it. So this decides nothing that Python would decide otherwise; it answers again what was answered.
 */
#include "road.h"

#include <pthread.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

void road_lock(void) { pthread_mutex_lock(&lock); }
void road_unlock(void) { pthread_mutex_unlock(&lock); }

static bool fits(PyObject *number, unsigned long largest, unsigned long *value)
{
    *value = PyLong_AsUnsignedLong(number); /* refuses what is no integer, or negative */
    if (PyErr_Occurred())
        return false;
    if (*value > largest)
        PyErr_Format(PyExc_OverflowError, "%lu is more than %lu", *value, largest);
    return *value <= largest;
}

int to_u16(PyObject *number, void *to)
{
    unsigned long value;
    if (!fits(number, UINT16_MAX, &value))
        return 0;
    *(uint16_t *)to = (uint16_t)value;
    return 1;
}

int to_u32(PyObject *number, void *to)
{
    unsigned long value;
    if (!fits(number, UINT32_MAX, &value))
        return 0;
    *(uint32_t *)to = (uint32_t)value;
    return 1;
}

/* decode(data, start, type) -> a type (Packet of packet.py), or None where Python is to be asked. */
static PyObject *road_decode(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t count)
{
    Py_buffer buffer;
    struct packet packet;
    if (count != 3 || !PyType_Check(arguments[2]) ||
        !PyType_FastSubclass((PyTypeObject *)arguments[2], Py_TPFLAGS_TUPLE_SUBCLASS)) {
        PyErr_SetString(PyExc_TypeError, "decode() takes data, where to start, and a type of tuple");
        return NULL;
    }
    Py_ssize_t start = PyLong_AsSsize_t(arguments[1]);
    if ((start == -1 && PyErr_Occurred()) || PyObject_GetBuffer(arguments[0], &buffer, PyBUF_SIMPLE) < 0)
        return NULL;
    PyObject *made = NULL;
    if (start < 0 || start > buffer.len ||
        !decode((const uint8_t *)buffer.buf + start, (size_t)(buffer.len - start), &packet)) {
        made = Py_NewRef(Py_None);
    } else {
        PyTypeObject *type = (PyTypeObject *)arguments[2];
        PyObject *fields[] = {
            PyLong_FromLong(packet.address_length == 4 ? 4 : 6),
            PyBytes_FromStringAndSize((const char *)packet.source, packet.address_length),
            PyBytes_FromStringAndSize((const char *)packet.destination, packet.address_length),
            PyLong_FromLong(packet.protocol),
            PyLong_FromLong(packet.source_port),
            PyLong_FromLong(packet.port),
            PyBool_FromLong(packet.first),
            Py_NewRef(Py_False), /* neighbour */
            PyBool_FromLong(packet.ends),
            Py_NewRef(Py_None), /* quoted */
        };
        enum { FIELDS = sizeof fields / sizeof *fields };
        made = type->tp_alloc(type, FIELDS);
        for (int i = 0; i < FIELDS; i++) {
            if (made && fields[i])
                PyTuple_SET_ITEM(made, i, fields[i]);
            else {
                Py_CLEAR(made);
                Py_XDECREF(fields[i]);
            }
        }
    }
    PyBuffer_Release(&buffer);
    return made;
}

static PyMethodDef methods[] = {
    {"decode", (PyCFunction)(void (*)(void))road_decode, METH_FASTCALL, "decode(data, start, type) -> type, or None."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "glacic.native._road",
    .m_doc = "Road 2, compiled.",
    .m_size = -1,
    .m_methods = methods,
};

PyMODINIT_FUNC PyInit__road(void)
{
    static PyTypeObject *const types[] = {&Table_Type, &Rules_Type, &Known_Type, &Queue_Type, &Log_Type};
    static bool forks;
    if (!forks && pthread_atfork(road_lock, road_unlock, road_unlock)) /* no child is born with the lock taken */
        return PyErr_NoMemory();
    forks = true;
    PyObject *made = PyModule_Create(&module);
    for (size_t i = 0; made && i < sizeof types / sizeof *types; i++)
        if (PyModule_AddType(made, types[i]) < 0)
            Py_CLEAR(made);
    return made;
}
