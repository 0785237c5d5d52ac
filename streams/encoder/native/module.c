/* The module streams.encoder._native. */
#include "binding.h"

static PyTypeObject *add_type(PyObject *module, PyType_Spec *spec)
{
    PyTypeObject *type = (PyTypeObject *)PyType_FromModuleAndSpec(module, spec, NULL);
    if (type != NULL && PyModule_AddType(module, type) < 0)
        Py_CLEAR(type);
    return type;
}

/* The kinds by name, each with that of its arrays. */
static PyObject *kind_names(void)
{
    PyObject *names = PyFrozenSet_New(NULL);
    for (const Kind *kind = scalar_kinds; names != NULL && kind->name != NULL; kind++) {
        PyObject *scalar = PyUnicode_FromString(kind->name);
        PyObject *array = PyUnicode_FromFormat("%s[]", kind->name);
        if (scalar == NULL || array == NULL || PySet_Add(names, scalar) < 0 ||
            PySet_Add(names, array) < 0)
            Py_CLEAR(names);
        Py_XDECREF(scalar);
        Py_XDECREF(array);
    }
    return names;
}

static int fill_module(PyObject *module)
{
    ModuleState *state = PyModule_GetState(module);
    PyObject *errors = PyImport_ImportModule("streams.encoder.errors");
    if (errors == NULL)
        return -1;
    state->error = PyObject_GetAttrString(errors, "EncoderError");
    Py_DECREF(errors);
    if (state->error == NULL)
        return -1;
    state->plan_type = add_type(module, &plan_spec);
    state->encoder_type = add_type(module, &encoder_spec);
    state->batch_type = add_type(module, &batch_spec);
    PyObject *names = kind_names();
    int added = PyModule_AddObjectRef(module, "KINDS", names);
    Py_XDECREF(names);
    return added < 0 || state->plan_type == NULL || state->encoder_type == NULL ||
                   state->batch_type == NULL
               ? -1
               : 0;
}

static int traverse(PyObject *module, visitproc visit, void *arg)
{
    ModuleState *state = PyModule_GetState(module);
    Py_VISIT(state->error);
    Py_VISIT(state->plan_type);
    Py_VISIT(state->encoder_type);
    Py_VISIT(state->batch_type);
    return 0;
}

static int clear(PyObject *module)
{
    ModuleState *state = PyModule_GetState(module);
    Py_CLEAR(state->error);
    Py_CLEAR(state->plan_type);
    Py_CLEAR(state->encoder_type);
    Py_CLEAR(state->batch_type);
    return 0;
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, fill_module},
    {0, NULL},
};

static PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_native",
    .m_doc = "PostgreSQL's binary rows as JSON or CSV records.",
    .m_size = sizeof(ModuleState),
    .m_slots = slots,
    .m_traverse = traverse,
    .m_clear = clear,
};

PyMODINIT_FUNC PyInit__native(void)
{
    return PyModuleDef_Init(&definition);
}
