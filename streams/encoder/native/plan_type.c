#include <string.h>

#include "binding.h"

/* Raises what is wrong with a column; false, so that it can be returned. */
static bool refused(const char *what, Py_ssize_t index)
{
    if (what == no_memory)
        PyErr_NoMemory();
    else
        PyErr_Format(PyExc_ValueError, "column %zd: %s", index, what);
    return false;
}

static bool set_column(Plan *plan, Py_ssize_t index, PyObject *given)
{
    PyObject *column = PySequence_Tuple(given);
    PyObject *name_object, *kind_object;
    const char *kind = NULL, *name = NULL;
    Py_ssize_t kind_size = 0, name_size = 0;
    int guarded;
    bool ok = column != NULL &&
              PyArg_ParseTuple(column, "OUp;a column is its name, kind and guard", &name_object,
                               &kind_object, &guarded);
    if (ok) {
        kind = PyUnicode_AsUTF8AndSize(kind_object, &kind_size);
        ok = kind != NULL;
    }
    if (ok && name_object != Py_None) {
        name = PyUnicode_AsUTF8AndSize(name_object, &name_size);
        ok = name != NULL;
    }
    if (ok) {
        const char *wrong = plan_set_column(plan, (size_t)index, name, (size_t)name_size, kind,
                                            (size_t)kind_size, guarded != 0);
        ok = wrong == NULL || refused(wrong, index);
    }
    Py_XDECREF(column);
    return ok;
}

static bool set_key(Plan *plan, Py_ssize_t index, PyObject *given)
{
    Py_ssize_t column = PyLong_AsSsize_t(given);
    if (column == -1 && PyErr_Occurred())
        return false;
    const char *wrong = column < 0 ? "there is no column of this index"
                                   : plan_set_key(plan, (size_t)index, (size_t)column);
    return wrong == NULL || refused(wrong, column);
}

static bool fill(Plan *plan, PyObject *columns, PyObject *keys, const char *between,
                 Py_ssize_t between_size)
{
    const char *wrong = plan_set_between(plan, between, (size_t)between_size);
    bool ok = wrong == NULL || refused(wrong, 0);
    for (Py_ssize_t i = 0; ok && i < PyTuple_Size(columns); i++)
        ok = set_column(plan, i, PyTuple_GetItem(columns, i));
    for (Py_ssize_t i = 0; ok && i < PyTuple_Size(keys); i++)
        ok = set_key(plan, i, PyTuple_GetItem(keys, i));
    return ok;
}

/* Whether the form is one that there is, and its delimiter one that a field can be told by. */
static bool form_is_known(const char *form, const char *delimiter, Py_ssize_t size)
{
    if (strcmp(form, "json") != 0 && strcmp(form, "csv") != 0)
        PyErr_SetString(PyExc_ValueError, "the form is json or csv");
    else if (size != 1 || strchr("\"\r\n", delimiter[0]) != NULL || (delimiter[0] & 0x80) != 0)
        PyErr_SetString(PyExc_ValueError, "the delimiter is one ASCII character that ends nothing");
    else
        return true;
    return false;
}

static Plan *make_plan(PyObject *columns, PyObject *keys, const char *form, const char *between,
                       Py_ssize_t between_size, CsvStyle style)
{
    Plan *plan = NULL;
    PyObject *column_tuple = PySequence_Tuple(columns);
    PyObject *key_tuple = keys == NULL ? PyTuple_New(0) : PySequence_Tuple(keys);
    if (column_tuple != NULL && key_tuple != NULL) {
        plan = plan_new((size_t)PyTuple_Size(column_tuple), (size_t)PyTuple_Size(key_tuple),
                        strcmp(form, "csv") == 0, style);
        if (plan == NULL)
            PyErr_NoMemory();
    }
    if (plan != NULL && !fill(plan, column_tuple, key_tuple, between, between_size)) {
        plan_free(plan);
        plan = NULL;
    }
    Py_XDECREF(column_tuple);
    Py_XDECREF(key_tuple);
    return plan;
}

static PyObject *plan_object_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {"columns", "form", "between", "keys", "delimiter", "guard", "quote_all",
                            NULL};
    PyObject *columns, *keys = NULL, *between_object = NULL, *delimiter_object = NULL;
    const char *form, *delimiter = ",";
    char *between = "";
    Py_ssize_t between_size = 0, delimiter_size = 1;
    int guard = 0, quote_all = 0;
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "Os|$SOUpp:Plan", names, &columns, &form,
                                     &between_object, &keys, &delimiter_object, &guard,
                                     &quote_all))
        return NULL;
    if (between_object != NULL &&
        PyBytes_AsStringAndSize(between_object, &between, &between_size) < 0)
        return NULL;
    if (delimiter_object != NULL) {
        delimiter = PyUnicode_AsUTF8AndSize(delimiter_object, &delimiter_size);
        if (delimiter == NULL)
            return NULL;
    }
    if (!form_is_known(form, delimiter, delimiter_size))
        return NULL;
    CsvStyle style = {delimiter[0], guard != 0, quote_all != 0};
    Plan *plan = make_plan(columns, keys, form, between, between_size, style);
    if (plan == NULL)
        return NULL;
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    PlanObject *self = (PlanObject *)allocate(type, 0);
    if (self == NULL) {
        plan_free(plan);
        return NULL;
    }
    self->plan = plan;
    return (PyObject *)self;
}

static void plan_object_free(PyObject *self)
{
    plan_free(((PlanObject *)self)->plan);
    free_object(self);
}

static PyType_Slot slots[] = {
    {Py_tp_new, plan_object_new},
    {Py_tp_dealloc, plan_object_free},
    {Py_tp_doc,
     "Plan(columns, form, *, between=b'', keys=(), delimiter=',', guard=False,"
     " quote_all=False)\n--\n\n"
     "The columns of a query's rows, and what a record of them looks like.\n\n"
     "`columns` are Column tuples, `form` is json or csv. `between` is written between two\n"
     "records of a batch. `keys` are indexes of the columns whose texts make a row's token, in\n"
     "the token's order. `delimiter` is one ASCII character. With `guard` a CSV field is quoted\n"
     "also where a reader that splits at another delimiter would find a formula in it; with\n"
     "`quote_all` every one is, NULL too. Raises ValueError for a kind that there isn't, or that\n"
     "can't be a key."},
    {0, NULL},
};

PyType_Spec plan_spec = {
    .name = "streams.encoder._native.Plan",
    .basicsize = sizeof(PlanObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = slots,
};
