// {if step}
// Books seats. A step (`execute`) and its undo (`compensate`).
// {end}
// {if undo-only}
// Cancels seats: the undo of a step that another plugin does. It works on that plugin's state.
// {end}
//
// The booking is in the plugin's state, under the saga and the step: what a call writes there is
// committed together with the fact that the call succeeded, or not at all.
//
// `plugin.h` is made from `wit/` by `amends plugin build`. What is given back is on the heap: the
// bindings free it (`plugin_string_dup` copies a text there).

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"
#include "plugin.h"

// {if step}
#define SEATS_MAX 8

// {end}
static const char input_schema[] =
    "{\"type\":\"object\",\"required\":[\"event\",\"seats\"],\"properties\":{"
    "\"event\":{\"type\":\"string\",\"maxLength\":100},"
    "\"seats\":{\"type\":\"integer\",\"minimum\":1,\"maximum\":1000}},"
    // `amends plugin test` calls the step with these.
    "\"examples\":[{\"event\":\"concert\",\"seats\":2},{\"event\":\"matinee\",\"seats\":1}]}";

static const char output_schema[] =
    "{\"type\":\"object\",\"required\":[\"booking\",\"seats\"],\"properties\":{"
    "\"booking\":{\"type\":\"string\"},\"seats\":{\"type\":\"integer\"}}}";

// The key of the booking: the same for every attempt, and for the undo as for the step. A key of
// the state has at most 256 bytes.
static void booking_of(const amends_saga_types_call_t *call, char booking[257]) {
    snprintf(booking, 257, "booking/%.*s/%.*s", (int)call->saga_id.len, (char *)call->saga_id.ptr,
             (int)call->step.len, (char *)call->step.ptr);
}

static void log_line(const char *text, char *booking) {
    plugin_string_t message;
    plugin_string_set(&message, text);
    plugin_tuple2_string_string_t field;
    plugin_string_set(&field.f0, "booking");
    plugin_string_set(&field.f1, booking);
    plugin_list_tuple2_string_string_t fields = {&field, 1};
    amends_saga_log_write(AMENDS_SAGA_LOG_LEVEL_INFO, &message, &fields);
}

// No effect stands, and another attempt would not help.
static bool permanent(amends_saga_types_failure_t *failure, const char *code, const char *message) {
    memset(failure, 0, sizeof *failure);
    failure->tag = AMENDS_SAGA_TYPES_FAILURE_PERMANENT;
    plugin_string_dup(&failure->val.permanent.code, code);
    plugin_string_dup(&failure->val.permanent.message, message);
    return false;
}

void exports_amends_saga_manifest_describe(exports_amends_saga_manifest_description_t *ret) {
    memset(ret, 0, sizeof *ret);
    plugin_string_dup(&ret->name, "{NAME}");
    plugin_string_dup(&ret->version, "0.1.0");
    // {if step}
    plugin_string_dup(&ret->summary, "Books seats.");
    // {end}
    // {if undo-only}
    plugin_string_dup(&ret->summary, "Cancels seats.");
    // {end}
    plugin_string_dup(&ret->input_schema, input_schema);
    plugin_string_dup(&ret->output_schema, output_schema);
    ret->needs.ptr = malloc(sizeof *ret->needs.ptr);
    ret->needs.len = 1;
    plugin_string_dup(ret->needs.ptr, "state");
}

// {if step}
bool exports_amends_saga_action_execute(exports_amends_saga_action_call_t *call,
                                        exports_amends_saga_action_json_t *input,
                                        exports_amends_saga_action_json_t *ret,
                                        exports_amends_saga_action_failure_t *err) {
    char booking[257], quoted[520], event[401], text[640];
    long seats = 0;
    const char *json = (const char *)input->ptr;
    booking_of(call, booking);
    plugin_string_t key;
    plugin_string_set(&key, booking);
    // Called again with the same idempotency key: the booking is there, and so is the answer.
    if (amends_saga_state_get(&key, ret)) {
        return true;
    }
    if (!json_string(json, input->len, "event", event, sizeof event) ||
        !json_integer(json, input->len, "seats", &seats)) {
        return permanent(err, "invalid_input", "an order has an event and seats");
    }
    if (seats > SEATS_MAX) {
        snprintf(text, sizeof text, "%ld seats for %s, and one booking has at most %d", seats, event,
                 SEATS_MAX);
        return permanent(err, "too_many_seats", text);
    }
    if (!json_quote(booking, quoted, sizeof quoted)) {
        return permanent(err, "invalid_step", "the name of the step is too long");
    }
    snprintf(text, sizeof text, "{\"booking\":%s,\"seats\":%ld}", quoted, seats);
    plugin_string_dup(ret, text);
    amends_saga_state_set(&key, ret);
    log_line("booked", booking);
    return true;
}

// {end}
// The output is NULL when nobody knows whether the step happened: the state tells.
bool exports_amends_saga_undo_compensate(exports_amends_saga_undo_call_t *call,
                                         exports_amends_saga_undo_json_t *input,
                                         exports_amends_saga_undo_json_t *maybe_output,
                                         exports_amends_saga_undo_undone_t *ret,
                                         exports_amends_saga_undo_failure_t *err) {
    (void)input, (void)maybe_output;
    char booking[257], quoted[520], text[640];
    booking_of(call, booking);
    plugin_string_t key;
    plugin_string_set(&key, booking);
    if (!amends_saga_state_delete(&key)) {
        ret->tag = EXPORTS_AMENDS_SAGA_UNDO_UNDONE_NOTHING;
        return true;
    }
    if (!json_quote(booking, quoted, sizeof quoted)) {
        return permanent(err, "invalid_step", "the name of the step is too long");
    }
    snprintf(text, sizeof text, "{\"cancelled\":%s}", quoted);
    ret->tag = EXPORTS_AMENDS_SAGA_UNDO_UNDONE_DONE;
    ret->val.done.is_some = true;
    plugin_string_dup(&ret->val.done.val, text);
    log_line("cancelled", booking);
    return true;
}
