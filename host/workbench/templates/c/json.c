#include "json.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct reader {
    const char *at;
    const char *end;
};

static void skip_blanks(struct reader *reader) {
    while (reader->at < reader->end && strchr(" \t\r\n", *reader->at)) {
        reader->at++;
    }
}

// Past the character, if it is the next one after blanks.
static bool take(struct reader *reader, char character) {
    skip_blanks(reader);
    if (reader->at == reader->end || *reader->at != character) {
        return false;
    }
    reader->at++;
    return true;
}

// UTF-8 of a code point; how many bytes.
static size_t encode(uint32_t point, char bytes[4]) {
    if (point < 0x80) {
        bytes[0] = (char)point;
        return 1;
    }
    size_t count = point < 0x800 ? 2 : point < 0x10000 ? 3 : 4;
    for (size_t i = count - 1; i > 0; i--) {
        bytes[i] = (char)(0x80 | (point & 0x3f));
        point >>= 6;
    }
    bytes[0] = (char)((0xf00u >> count) | point);
    return count;
}

static uint32_t hex(struct reader *reader) {
    char digits[5] = {0};
    for (int i = 0; i < 4 && reader->at < reader->end; i++) {
        digits[i] = *reader->at++;
    }
    return (uint32_t)strtoul(digits, NULL, 16);
}

// One character of a string, without its escape, as UTF-8.
static size_t read_character(struct reader *reader, char bytes[4]) {
    char character = *reader->at++;
    if (character != '\\' || reader->at == reader->end) {
        bytes[0] = character;
        return 1;
    }
    character = *reader->at++;
    if (character == 'u') {
        uint32_t point = hex(reader);
        bool is_half = point >= 0xd800 && point < 0xdc00;
        if (is_half && reader->end - reader->at >= 6 && reader->at[0] == '\\') {
            reader->at += 2;
            point = 0x10000 + ((point - 0xd800) << 10) + (hex(reader) - 0xdc00);
        }
        return encode(point, bytes);
    }
    static const char escapes[] = "b\bf\fn\nr\rt\t";
    for (size_t i = 0; i + 1 < sizeof escapes; i += 2) {
        if (escapes[i] == character) {
            character = escapes[i + 1];
            break;
        }
    }
    bytes[0] = character;
    return 1;
}

// A string, past its first quote. `value` may be NULL.
static void read_string(struct reader *reader, char *value, size_t size) {
    size_t length = 0;
    bool fits = true;
    while (reader->at < reader->end && *reader->at != '"') {
        char bytes[4];
        size_t count = read_character(reader, bytes);
        fits = fits && length + count < size;
        if (value && fits) {
            memcpy(value + length, bytes, count);
            length += count;
        }
    }
    if (reader->at < reader->end) {
        reader->at++;
    }
    if (value && size > 0) {
        value[length] = '\0';
    }
}

// Past a value of any kind.
static void skip_value(struct reader *reader) {
    int depth = 0;
    do {
        skip_blanks(reader);
        if (reader->at == reader->end) {
            return;
        }
        char character = *reader->at++;
        if (character == '"') {
            read_string(reader, NULL, 0);
        } else if (character == '{' || character == '[') {
            depth++;
        } else if (character == '}' || character == ']') {
            depth--;
        } else if (depth == 0) {
            while (reader->at < reader->end && !strchr(",]} \t\r\n", *reader->at)) {
                reader->at++;
            }
        }
    } while (depth > 0);
}

// To the value of a field; false when there is none of that name.
static bool find(struct reader *reader, const char *name) {
    if (!take(reader, '{')) {
        return false;
    }
    while (take(reader, '"')) {
        char field[64];
        read_string(reader, field, sizeof field);
        take(reader, ':');
        skip_blanks(reader);
        if (strcmp(field, name) == 0) {
            return true;
        }
        skip_value(reader);
        take(reader, ',');
    }
    return false;
}

bool json_string(const char *json, size_t length, const char *name, char *value, size_t size) {
    struct reader reader = {json, json + length};
    if (!find(&reader, name) || !take(&reader, '"')) {
        return false;
    }
    read_string(&reader, value, size);
    return true;
}

bool json_integer(const char *json, size_t length, const char *name, long *value) {
    struct reader reader = {json, json + length};
    char digits[32] = {0};
    if (!find(&reader, name)) {
        return false;
    }
    for (size_t i = 0; i + 1 < sizeof digits && reader.at < reader.end; i++) {
        digits[i] = *reader.at++;
    }
    char *end;
    // A number such as 2.0 is a whole one as well.
    double number = strtod(digits, &end);
    *value = (long)number;
    return end != digits;
}

bool json_quote(const char *text, char *json, size_t size) {
    size_t length = 0;
    if (size < 3) {
        return false;
    }
    json[length++] = '"';
    for (; *text; text++) {
        unsigned char character = (unsigned char)*text;
        char escaped[8] = {(char)character};
        if (character < 0x20) {
            snprintf(escaped, sizeof escaped, "\\u%04x", character);
        } else if (character == '"' || character == '\\') {
            snprintf(escaped, sizeof escaped, "\\%c", character);
        }
        size_t count = strlen(escaped);
        if (length + count + 2 > size) {
            return false;
        }
        memcpy(json + length, escaped, count);
        length += count;
    }
    json[length++] = '"';
    json[length] = '\0';
    return true;
}
