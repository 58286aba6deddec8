// Made part of every component by `amends plugin build`: a seed for `rand` and `random`.
//
// Each call has an instance of its own. The C library begins every one of them with the same seed, so
// that the numbers would be the same in every call. The linker puts these functions in place of those
// that the program calls (`--wrap`), and leaves out what nobody calls.

#include <stdbool.h>
#include <stdlib.h>
#include <unistd.h>

int __real_rand(void);
void __real_srand(unsigned seed);
long __real_random(void);
void __real_srandom(unsigned seed);

static bool has_seed, has_long_seed;

static unsigned drawn(void) {
    unsigned seed = 0;
    if (getentropy(&seed, sizeof seed)) {
        abort();
    }
    return seed;
}

void __wrap_srand(unsigned seed) {
    has_seed = true;
    __real_srand(seed);
}

int __wrap_rand(void) {
    if (!has_seed) {
        __wrap_srand(drawn());
    }
    return __real_rand();
}

void __wrap_srandom(unsigned seed) {
    has_long_seed = true;
    __real_srandom(seed);
}

long __wrap_random(void) {
    if (!has_long_seed) {
        __wrap_srandom(drawn());
    }
    return __real_random();
}
