/* What is known of a query's rows before the first one: their columns and what becomes of them. */
#ifndef FEEDSVC_PLAN_H
#define FEEDSVC_PLAN_H

#include "kinds.h"

typedef struct Plan {
    Column *columns;
    size_t column_count;
    size_t *keys; /* the columns whose texts make a row's token, in the token's order */
    size_t key_count;
    char *between; /* what stands between two records, SLACK bytes longer than it says */
    size_t between_size;
    bool is_csv;
    CsvStyle style;
    size_t room; /* what any row may need, apart from values whose size differs */
} Plan;

/* A plan without columns yet; NULL where there is no memory. */
Plan *plan_new(size_t columns, size_t keys, bool is_csv, CsvStyle style);
void plan_free(Plan *plan);

/* These say what is wrong, or NULL. Columns are set in their order; one without a name is read for
 * a token alone. */
const char *plan_set_column(Plan *plan, size_t index, const char *name, size_t name_size,
                            const char *kind, size_t kind_size, bool guarded);
const char *plan_set_key(Plan *plan, size_t index, size_t column);
const char *plan_set_between(Plan *plan, const char *between, size_t size);

extern const char no_memory[];

#endif
