/* What the Python types share. The limited API makes one wheel do for every Python from 3.11 on.

   Formats with `#` are not for it: 3.13's headers give them Py_ssize_t without being asked, and a
   module that was built with them raises SystemError below 3.13. */
#ifndef FEEDSVC_BINDING_H
#define FEEDSVC_BINDING_H

#define Py_LIMITED_API 0x030b0000
#include <Python.h>

#include "encoder.h"
#include "plan.h"

typedef struct {
    PyObject *error;
    PyTypeObject *plan_type;
    PyTypeObject *encoder_type;
    PyTypeObject *batch_type;
} ModuleState;

typedef struct {
    PyObject_HEAD
    Plan *plan;
} PlanObject;

extern PyType_Spec plan_spec, encoder_spec, batch_spec;

static inline ModuleState *state_of(PyObject *self)
{
    return PyType_GetModuleState(Py_TYPE(self));
}

/* Takes over the encoder's batch, which has at least one row. */
PyObject *batch_taken(ModuleState *state, Encoder *encoder);

/* For tp_dealloc. Types made of a spec are owned by their objects. */
static inline void free_object(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

#endif
