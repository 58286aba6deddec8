// Reads the fields of a JSON object. The host has checked the text: it is JSON and fits the input
// schema.
#pragma once

#include <stdbool.h>
#include <stddef.h>

// Copies the string of the field `name` of the object `json` to `value`, with a zero at its end;
// what does not fit into `size` is cut off. False when there is no such field or it is no string.
bool json_string(const char *json, size_t length, const char *name, char *value, size_t size);

// The whole number of the field `name`. False when there is no such field or it is no number.
bool json_integer(const char *json, size_t length, const char *name, long *value);

// Writes `text` as a JSON string, with its quotes and a zero at the end, to `json`. False when it
// does not fit into `size`.
bool json_quote(const char *text, char *json, size_t size);
