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

/* decode(data) -> (source, destination, protocol, port), or None where decode() in packet.py is to be asked. */
static PyObject *road_decode(PyObject *Py_UNUSED(module), PyObject *data)
{
    Py_buffer buffer;
    struct packet packet;
    if (PyObject_GetBuffer(data, &buffer, PyBUF_SIMPLE) < 0)
        return NULL;
    PyObject *found = decode(buffer.buf, (size_t)buffer.len, &packet)
                          ? Py_BuildValue("(y#y#BH)", (const char *)packet.source, (Py_ssize_t)packet.address_length,
                                          (const char *)packet.destination, (Py_ssize_t)packet.address_length,
                                          packet.protocol, packet.port)
                          : Py_NewRef(Py_None);
    PyBuffer_Release(&buffer);
    return found;
}

static PyMethodDef methods[] = {
    {"decode", road_decode, METH_O, "decode(data) -> (source, destination, protocol, port), or None."},
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
    PyObject *made = PyModule_Create(&module);
    for (size_t i = 0; made && i < sizeof types / sizeof *types; i++)
        if (PyModule_AddType(made, types[i]) < 0)
            Py_CLEAR(made);
    return made;
}
