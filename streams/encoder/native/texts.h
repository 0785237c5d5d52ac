/* What JSON and CSV share of texts. */
#ifndef FEEDSVC_TEXTS_H
#define FEEDSVC_TEXTS_H

#include "kinds.h"

enum { CHAR_EXPANDED = 4 };

/* A JSON string; `to` has room for six times its bytes, two quotes and SLACK. */
char *put_json_string(char *to, const uint8_t *text, size_t size);

/* The text of a "char", up to CHAR_EXPANDED bytes of it. */
size_t char_expanded(uint8_t byte, uint8_t *text);

#endif
