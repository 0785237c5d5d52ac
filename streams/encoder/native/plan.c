#include "plan.h"

#include <stdlib.h>
#include <string.h>

#include "texts.h"

const char no_memory[] = "out of memory";

enum { NULL_WIDTH = 4 };

Plan *plan_new(size_t columns, size_t keys, bool is_csv, CsvStyle style)
{
    Plan *plan = calloc(1, sizeof *plan);
    if (plan == NULL)
        return NULL;
    plan->columns = calloc(columns + 1, sizeof *plan->columns);
    plan->keys = calloc(keys + 1, sizeof *plan->keys);
    plan->column_count = columns;
    plan->key_count = keys;
    plan->is_csv = is_csv;
    plan->style = style;
    plan->room = 1 + SLACK;
    if (plan->columns == NULL || plan->keys == NULL || plan_set_between(plan, "", 0) != NULL) {
        plan_free(plan);
        return NULL;
    }
    return plan;
}

void plan_free(Plan *plan)
{
    if (plan == NULL)
        return;
    for (size_t i = 0; plan->columns != NULL && i < plan->column_count; i++)
        free(plan->columns[i].lead);
    free(plan->columns);
    free(plan->keys);
    free(plan->between);
    free(plan);
}

/* A copy that may be read SLACK bytes beyond its end. */
static char *padded(const char *text, size_t size)
{
    char *copy = calloc(1, size + SLACK);
    if (copy != NULL && size > 0)
        memcpy(copy, text, size);
    return copy;
}

const char *plan_set_between(Plan *plan, const char *between, size_t size)
{
    char *copy = padded(between, size);
    if (copy == NULL)
        return no_memory;
    free(plan->between);
    plan->between = copy;
    plan->room += size - plan->between_size;
    plan->between_size = size;
    return NULL;
}

static bool is_first(const Plan *plan, size_t index)
{
    for (size_t i = 0; i < index; i++)
        if (plan->columns[i].write != NULL)
            return false;
    return true;
}

/* What comes before a value: the delimiter, or the object's key and what leads up to it. */
static bool set_lead(Plan *plan, size_t index, const char *name, size_t name_size)
{
    Column *column = &plan->columns[index];
    bool first = is_first(plan, index);
    column->lead = calloc(1, plan->is_csv ? 1 + SLACK : 6 * name_size + 4 + SLACK);
    if (column->lead == NULL)
        return false;
    char *to = column->lead;
    if (plan->is_csv) {
        if (!first)
            *to++ = plan->style.delimiter;
    } else {
        *to++ = first ? '{' : ',';
        to = put_json_string(to, (const uint8_t *)name, name_size);
        *to++ = ':';
    }
    column->lead_size = (size_t)(to - column->lead);
    return true;
}

static Writer *csv_writer(const Column *column)
{
    const Kind *kind = column->kind;
    return column->style.quote_all && kind->csv == kind->text ? quoted_csv : kind->csv;
}

const char *plan_set_column(Plan *plan, size_t index, const char *name, size_t name_size,
                            const char *kind, size_t kind_size, bool guarded)
{
    Column *column = &plan->columns[index];
    bool is_array = kind_size > 2 && memcmp(kind + kind_size - 2, "[]", 2) == 0;
    const Kind *scalar = kind_named(kind, is_array ? kind_size - 2 : kind_size);
    if (scalar == NULL)
        return "there is no kind of this name";
    column->kind = is_array ? &array_kind : scalar;
    column->element = is_array ? scalar : NULL;
    column->is_csv = plan->is_csv;
    column->guarded = guarded;
    column->style = plan->style;
    if (name == NULL)
        return NULL;
    if (!set_lead(plan, index, name, name_size))
        return no_memory;
    column->write = plan->is_csv ? csv_writer(column) : column->kind->json;
    uint32_t width = column->kind->size == VARIABLE ? 0 : column->kind->width;
    plan->room += column->lead_size + (width > NULL_WIDTH ? width : NULL_WIDTH);
    plan->room += plan->style.quote_all ? 2 : 0;
    return NULL;
}

const char *plan_set_key(Plan *plan, size_t index, size_t column)
{
    if (column >= plan->column_count)
        return "there is no column of this index";
    if (plan->columns[column].kind->text == NULL)
        return "a column of this kind can't be part of a key";
    plan->keys[index] = column;
    return NULL;
}
