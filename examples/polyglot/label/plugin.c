// Gives a parcel its label: a serial shipping container code (GS1 SSCC) with its check digit. The next
// serial number is in the plugin's state, and so is the label of each parcel.

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"
#include "plugin.h"

// Of the sender, as GS1 gives it out; 34012345 is one for examples.
#define PREFIX "034012345"
#define SERIAL_MAX 99999999L

static const char input_schema[] =
    "{\"type\":\"object\",\"required\":[\"order\"],\"properties\":{"
    "\"order\":{\"type\":\"string\",\"maxLength\":100}},"
    "\"examples\":[{\"order\":\"ORD-1\"}]}";

static const char output_schema[] =
    "{\"type\":\"object\",\"required\":[\"label\",\"order\"],\"properties\":{"
    "\"label\":{\"type\":\"string\"},\"order\":{\"type\":\"string\"}}}";

// The key of the label: the same for every attempt, and for the undo as for the step.
static void key_of(const amends_saga_types_call_t *call, char key[257]) {
    snprintf(key, 257, "label/%.*s/%.*s", (int)call->saga_id.len, (char *)call->saga_id.ptr,
             (int)call->step.len, (char *)call->step.ptr);
}

// 17 digits and the check digit that they have: from the right, each times 3 and 1 in turn.
static void label_of(long serial, char label[32]) {
    int sum = 0;
    snprintf(label, 32, PREFIX "%08ld", serial);
    size_t count = strlen(label);
    for (size_t i = 0; i < count; i++) {
        sum += (label[count - 1 - i] - '0') * (i % 2 == 0 ? 3 : 1);
    }
    label[count] = (char)('0' + (10 - sum % 10) % 10);
    label[count + 1] = '\0';
}

// The next serial number, which is then taken; 0 when there is none left.
static long take_serial(void) {
    plugin_string_t key, found;
    plugin_string_set(&key, "serial");
    long serial = 1;
    if (amends_saga_state_get(&key, &found)) {
        char digits[24];
        snprintf(digits, sizeof digits, "%.*s", (int)found.len, (char *)found.ptr);
        serial = strtol(digits, NULL, 10) + 1;
        plugin_string_free(&found);
    }
    if (serial > SERIAL_MAX) {
        return 0;
    }
    char digits[24];
    snprintf(digits, sizeof digits, "%ld", serial);
    plugin_string_t value;
    plugin_string_set(&value, digits);
    amends_saga_state_set(&key, &value);
    return serial;
}

static void log_line(const char *text, char *label) {
    plugin_string_t message;
    plugin_string_set(&message, text);
    plugin_tuple2_string_string_t field;
    plugin_string_set(&field.f0, "key");
    plugin_string_set(&field.f1, label);
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
    plugin_string_dup(&ret->name, "label");
    plugin_string_dup(&ret->version, "0.1.0");
    plugin_string_dup(&ret->summary, "Gives a parcel its label.");
    plugin_string_dup(&ret->input_schema, input_schema);
    plugin_string_dup(&ret->output_schema, output_schema);
    ret->needs.ptr = malloc(sizeof *ret->needs.ptr);
    ret->needs.len = 1;
    plugin_string_dup(ret->needs.ptr, "state");
}

bool exports_amends_saga_action_execute(exports_amends_saga_action_call_t *call,
                                        exports_amends_saga_action_json_t *input,
                                        exports_amends_saga_action_json_t *ret,
                                        exports_amends_saga_action_failure_t *err) {
    char key_text[257], label[32], order[401], quoted[820], text[960];
    key_of(call, key_text);
    plugin_string_t key;
    plugin_string_set(&key, key_text);
    // Called again with the same idempotency key: the label is there, and so is the answer.
    if (amends_saga_state_get(&key, ret)) {
        return true;
    }
    if (!json_string((const char *)input->ptr, input->len, "order", order, sizeof order) ||
        !json_quote(order, quoted, sizeof quoted)) {
        return permanent(err, "invalid_order", "the number of the order cannot be used");
    }
    long serial = take_serial();
    if (serial == 0) {
        return permanent(err, "no_serials", "every serial number is taken");
    }
    label_of(serial, label);
    snprintf(text, sizeof text, "{\"label\":\"%s\",\"order\":%s}", label, quoted);
    plugin_string_dup(ret, text);
    amends_saga_state_set(&key, ret);
    log_line("labelled", key_text);
    return true;
}

// The output is NULL when nobody knows whether the step happened: the state tells.
bool exports_amends_saga_undo_compensate(exports_amends_saga_undo_call_t *call,
                                         exports_amends_saga_undo_json_t *input,
                                         exports_amends_saga_undo_json_t *maybe_output,
                                         exports_amends_saga_undo_undone_t *ret,
                                         exports_amends_saga_undo_failure_t *err) {
    (void)input, (void)maybe_output;
    char key_text[257], quoted[520], text[640];
    key_of(call, key_text);
    plugin_string_t key;
    plugin_string_set(&key, key_text);
    // The serial number stays taken: a label that was printed must not be given to another parcel.
    if (!amends_saga_state_delete(&key)) {
        ret->tag = EXPORTS_AMENDS_SAGA_UNDO_UNDONE_NOTHING;
        return true;
    }
    if (!json_quote(key_text, quoted, sizeof quoted)) {
        return permanent(err, "invalid_step", "the name of the step is too long");
    }
    snprintf(text, sizeof text, "{\"voided\":%s}", quoted);
    ret->tag = EXPORTS_AMENDS_SAGA_UNDO_UNDONE_DONE;
    ret->val.done.is_some = true;
    plugin_string_dup(&ret->val.done.val, text);
    log_line("voided", key_text);
    return true;
}
