#include <stdlib.h>

#include "binding.h"

typedef struct {
    PyObject_HEAD
    char *data;
    size_t size;
    size_t *ends;
    size_t rows;
    size_t between_size;
    PyObject *last;
} BatchObject;

/* The last row's key texts. */
static PyObject *last_keys(const Encoder *encoder)
{
    size_t count = encoder->plan->key_count;
    PyObject *texts = PyTuple_New((Py_ssize_t)count);
    const char *at = encoder->keys.data;
    for (size_t i = 0; texts != NULL && i < count; i++) {
        size_t size = encoder->key_sizes[i];
        PyObject *text = Py_None;
        if (size == NO_KEY) {
            Py_INCREF(text);
        } else {
            text = PyUnicode_DecodeUTF8(at == NULL ? "" : at, (Py_ssize_t)size, "strict");
            at += size;
        }
        if (text == NULL || PyTuple_SetItem(texts, (Py_ssize_t)i, text) < 0)
            Py_CLEAR(texts);
    }
    return texts;
}

PyObject *batch_taken(ModuleState *state, Encoder *encoder)
{
    PyObject *last = last_keys(encoder);
    if (last == NULL) {
        if (PyErr_ExceptionMatches(PyExc_UnicodeDecodeError))
            PyErr_SetString(state->error, "a key that is not UTF-8");
        return NULL;
    }
    allocfunc allocate = (allocfunc)PyType_GetSlot(state->batch_type, Py_tp_alloc);
    BatchObject *self = (BatchObject *)allocate(state->batch_type, 0);
    if (self == NULL) {
        Py_DECREF(last);
        return NULL;
    }
    /* A batch may be kept for as long as a client stalls. */
    buffer_fit(&encoder->records);
    buffer_fit(&encoder->ends);
    self->data = encoder->records.data;
    self->size = encoder->records.size;
    self->ends = (size_t *)(void *)encoder->ends.data;
    self->rows = encoder->rows;
    self->between_size = encoder->plan->between_size;
    self->last = last;
    encoder->records = encoder->ends = (Buffer){0};
    encoder_begin_batch(encoder);
    return (PyObject *)self;
}

static void batch_dealloc(PyObject *object)
{
    BatchObject *self = (BatchObject *)object;
    free(self->data);
    free(self->ends);
    Py_XDECREF(self->last);
    free_object(object);
}

static int get_buffer(PyObject *object, Py_buffer *view, int flags)
{
    BatchObject *self = (BatchObject *)object;
    return PyBuffer_FillInfo(view, object, self->data, (Py_ssize_t)self->size, 1, flags);
}

static Py_ssize_t length(PyObject *object)
{
    return (Py_ssize_t)((BatchObject *)object)->size;
}

/* There are records in it, even if all of them are empty. */
static int is_true(PyObject *Py_UNUSED(object))
{
    return 1;
}

static PyObject *records(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    BatchObject *self = (BatchObject *)object;
    PyObject *list = PyList_New((Py_ssize_t)self->rows);
    size_t begin = 0;
    for (size_t i = 0; list != NULL && i < self->rows; i++) {
        Py_ssize_t size = (Py_ssize_t)(self->ends[i] - begin);
        PyObject *record = PyBytes_FromStringAndSize(self->data + begin, size);
        if (record == NULL || PyList_SetItem(list, (Py_ssize_t)i, record) < 0)
            Py_CLEAR(list);
        begin = self->ends[i] + self->between_size;
    }
    return list;
}

static PyObject *get_rows(PyObject *object, void *Py_UNUSED(closure))
{
    return PyLong_FromSize_t(((BatchObject *)object)->rows);
}

static PyObject *get_last(PyObject *object, void *Py_UNUSED(closure))
{
    return Py_NewRef(((BatchObject *)object)->last);
}

static PyMethodDef methods[] = {
    {"records", records, METH_NOARGS, "Each record by itself."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef attributes[] = {
    {"rows", get_rows, NULL, "How many records it holds.", NULL},
    {"last", get_last, NULL, "The last row's key as texts, None for what is NULL.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_dealloc, batch_dealloc},
    {Py_tp_methods, methods},
    {Py_tp_getset, attributes},
    {Py_sq_length, length},
    {Py_nb_bool, is_true},
    {Py_bf_getbuffer, get_buffer},
    {Py_tp_doc, 
     "Records joined to one piece of memory, which readers of buffers can have uncopied.\n\n"
     "Its length is its bytes. It is true even where they are none."},
    {0, NULL},
};

PyType_Spec batch_spec = {
    .name = "streams.encoder._native.Batch",
    .basicsize = sizeof(BatchObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = slots,
};
