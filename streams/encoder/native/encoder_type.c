#include <stdlib.h>

#include "binding.h"

typedef struct {
    PyObject_HEAD
    PyObject *plan;
    Encoder encoder;
    size_t expected; /* bytes that the last batch came to */
    bool busy;       /* at work without the GIL */
} EncoderObject;

static PyObject *encoder_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {"plan", "limit", NULL};
    PyTypeObject *plan_type = ((ModuleState *)PyType_GetModuleState(type))->plan_type;
    PyObject *plan, *limit_object = Py_None;
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "O!|O:Encoder", names, plan_type, &plan,
                                     &limit_object))
        return NULL;
    uint64_t limit = NO_LIMIT;
    if (limit_object != Py_None) {
        limit = PyLong_AsUnsignedLongLong(limit_object);
        if (limit == UINT64_MAX && PyErr_Occurred())
            return NULL;
    }
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    EncoderObject *self = (EncoderObject *)allocate(type, 0);
    if (self == NULL)
        return NULL;
    if (!encoder_init(&self->encoder, ((PlanObject *)plan)->plan, limit)) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    self->plan = Py_NewRef(plan);
    return (PyObject *)self;
}

static void encoder_dealloc(PyObject *object)
{
    EncoderObject *self = (EncoderObject *)object;
    encoder_free(&self->encoder);
    Py_XDECREF(self->plan);
    free_object(object);
}

static bool begin_work(EncoderObject *self)
{
    if (self->busy) {
        PyErr_SetString(PyExc_RuntimeError, "the encoder is at work in another thread");
        return false;
    }
    return true;
}

static PyObject *outcome(EncoderObject *self, Status status)
{
    Encoder *encoder = &self->encoder;
    if (status == DONE)
        Py_RETURN_NONE;
    if (status == NO_MEMORY) {
        encoder->fault = no_memory; /* what was cut off in the middle is not gone on with */
        return PyErr_NoMemory();
    }
    unsigned long long row = encoder->row + 1;
    PyObject *error = state_of((PyObject *)self)->error;
    if (encoder->column == NO_COLUMN)
        PyErr_Format(error, "row %llu: %s", row, encoder->fault);
    else
        PyErr_Format(error, "row %llu, column %zu: %s", row, encoder->column, encoder->fault);
    return NULL;
}

/* Memory for as large a batch as the last one, so that it need not grow there by and by. */
static void expect(EncoderObject *self)
{
    if (self->encoder.records.data == NULL && self->expected > 0)
        (void)buffer_reserve(&self->encoder.records, self->expected);
}

static PyObject *feed_copy(PyObject *object, PyObject *chunk)
{
    EncoderObject *self = (EncoderObject *)object;
    if (!begin_work(self))
        return NULL;
    /* Bytes alone are sure not to change while they are read. */
    PyObject *bytes = PyBytes_CheckExact(chunk) ? Py_NewRef(chunk) : PyBytes_FromObject(chunk);
    if (bytes == NULL)
        return NULL;
    const uint8_t *data = (const uint8_t *)PyBytes_AsString(bytes);
    size_t size = (size_t)PyBytes_Size(bytes);
    Status status;
    self->busy = true;
    Py_BEGIN_ALLOW_THREADS
    expect(self);
    status = encode_copied(&self->encoder, data, size);
    Py_END_ALLOW_THREADS
    self->busy = false;
    Py_DECREF(bytes);
    return outcome(self, status);
}

static PyObject *end_copy(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    EncoderObject *self = (EncoderObject *)object;
    return begin_work(self) ? outcome(self, encode_copy_end(&self->encoder)) : NULL;
}

/* Where the rows lie; NULL with an exception where one is not bytes. */
static Field *fields_of(PyObject *rows, size_t count)
{
    Field *fields = malloc((count + 1) * sizeof *fields);
    if (fields == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    for (size_t i = 0; i < count; i++) {
        PyObject *row = PyTuple_GetItem(rows, (Py_ssize_t)i);
        if (!PyBytes_CheckExact(row)) {
            PyErr_SetString(PyExc_TypeError, "a row is the bytes that record_send gives");
            free(fields);
            return NULL;
        }
        fields[i].data = (const uint8_t *)PyBytes_AsString(row);
        fields[i].size = (size_t)PyBytes_Size(row);
    }
    return fields;
}

static PyObject *feed_records(PyObject *object, PyObject *given)
{
    EncoderObject *self = (EncoderObject *)object;
    PyObject *rows = PySequence_Tuple(given);
    if (rows == NULL)
        return NULL;
    size_t count = (size_t)PyTuple_Size(rows);
    Field *fields = begin_work(self) ? fields_of(rows, count) : NULL;
    if (fields == NULL) {
        Py_DECREF(rows);
        return NULL;
    }
    Status status;
    self->busy = true;
    Py_BEGIN_ALLOW_THREADS
    expect(self);
    status = encode_sent(&self->encoder, fields, count);
    Py_END_ALLOW_THREADS
    self->busy = false;
    free(fields);
    Py_DECREF(rows);
    return outcome(self, status);
}

static PyObject *take(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    EncoderObject *self = (EncoderObject *)object;
    if (!begin_work(self))
        return NULL;
    if (self->encoder.fault != NULL)
        return outcome(self, BROKEN);
    if (self->encoder.rows == 0)
        Py_RETURN_NONE;
    self->expected = self->encoder.records.size;
    return batch_taken(state_of(object), &self->encoder);
}

static PyObject *get_rows(PyObject *object, void *Py_UNUSED(closure))
{
    return PyLong_FromSize_t(((EncoderObject *)object)->encoder.rows);
}

static PyObject *get_size(PyObject *object, void *Py_UNUSED(closure))
{
    return PyLong_FromSize_t(((EncoderObject *)object)->encoder.records.size);
}

static PyObject *get_more(PyObject *object, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(((EncoderObject *)object)->encoder.more);
}

static PyObject *get_ended(PyObject *object, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(((EncoderObject *)object)->encoder.copy == BEHIND_END);
}

static PyMethodDef methods[] = {
    {"feed_copy", feed_copy, METH_O,
     "Takes a chunk of a COPY stream, cut anywhere. Raises EncoderError."},
    {"end_copy", end_copy, METH_NOARGS, 
     "Makes sure that the COPY stream was whole; another may follow. Raises EncoderError."},
    {"feed_records", feed_records, METH_O, 
     "Takes rows as record_send gives them, a sequence of bytes. Raises EncoderError."},
    {"take", take, METH_NOARGS, 
     "The Batch of the records since it was last called, None if there are none. Raises "
     "EncoderError."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef attributes[] = {
    {"rows", get_rows, NULL, "How many records `take` would give.", NULL},
    {"size", get_size, NULL, "How many bytes `take` would give.", NULL},
    {"more", get_more, NULL, "Whether there were rows beyond the limit.", NULL},
    {"ended", get_ended, NULL, "Whether the end of a COPY stream has come.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_new, encoder_new},
    {Py_tp_dealloc, encoder_dealloc},
    {Py_tp_methods, methods},
    {Py_tp_getset, attributes},
    {Py_tp_doc,
     "Encoder(plan, limit=None)\n--\n\n"
     "Makes at most `limit` records of rows in PostgreSQL's binary form.\n\n"
     "The GIL is released while it works. After an EncoderError it does nothing but raise it."},
    {0, NULL},
};

PyType_Spec encoder_spec = {
    .name = "streams.encoder._native.Encoder",
    .basicsize = sizeof(EncoderObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = slots,
};
