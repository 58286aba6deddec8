/* What stands between a host and its disk and clock, in tests. Loaded with LD_PRELOAD.
 *
 * Of each write to a database (AMENDS_SHIM_FILES, to which names of files beside it are added), and of
 * each fsync of it or of its folder, it keeps a record in AMENDS_SHIM_JOURNAL, in the order in which they happened: `disk.rs` makes of that what a power cut
 * would have left. AMENDS_SHIM_CONTROL is a file of `struct control` that the test writes and each
 * host maps: it has writes fail and moves the wall clock. With AMENDS_SHIM_UNLOCKED set, flock takes
 * no lock and says that it did, as some network file systems do.
 *
 * Two are left alone: "-shm", which SQLite maps and makes anew, and "-key", which is no part of the
 * database.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

struct control {
    int64_t clock_offset_ms;
    uint32_t write_fails_permille; /* of writes and truncates */
    uint32_t sync_fails_permille;
    uint32_t error;                /* what errno is then */
    uint32_t half;                 /* 1: a write that fails has written a half before */
};

enum kind { WRITTEN = 1, TRUNCATED = 2, SYNCED = 3, UNLINKED = 4, RENAMED = 5 };

struct record {
    uint32_t kind;
    uint32_t path_bytes;
    uint64_t offset; /* TRUNCATED: the length */
    uint64_t data_bytes;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const volatile struct control *control;
static const char *files; /* what the paths of all of them begin with */
static size_t files_bytes;
static size_t folder_bytes;
static int journal = -1;
static int unlocked;
static uint64_t random_state;

static ssize_t (*real_write)(int, const void *, size_t);
static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);
static int (*real_ftruncate)(int, off_t);
static int (*real_fsync)(int);
static int (*real_fdatasync)(int);
static int (*real_unlink)(const char *);
static int (*real_rename)(const char *, const char *);
static int (*real_flock)(int, int);

static void prepare(void) {
    real_write = dlsym(RTLD_NEXT, "write");
    real_pwrite = dlsym(RTLD_NEXT, "pwrite64");
    real_ftruncate = dlsym(RTLD_NEXT, "ftruncate64");
    real_fsync = dlsym(RTLD_NEXT, "fsync");
    real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
    real_unlink = dlsym(RTLD_NEXT, "unlink");
    real_rename = dlsym(RTLD_NEXT, "rename");
    real_flock = dlsym(RTLD_NEXT, "flock");
}

__attribute__((constructor)) static void begin(void) {
    prepare();
    files = getenv("AMENDS_SHIM_FILES");
    files_bytes = files ? strlen(files) : 0;
    folder_bytes = files ? strrchr(files, '/') - files : 0;
    unlocked = getenv("AMENDS_SHIM_UNLOCKED") != NULL;
    const char *path = getenv("AMENDS_SHIM_JOURNAL");
    if (path) journal = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    path = getenv("AMENDS_SHIM_CONTROL");
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd >= 0) {
        void *mapped = mmap(NULL, sizeof(struct control), PROT_READ, MAP_SHARED, fd, 0);
        if (mapped != MAP_FAILED) control = mapped;
        close(fd);
    }
    const char *seed = getenv("AMENDS_SHIM_SEED");
    random_state = ((seed ? strtoull(seed, NULL, 10) : 0) ^ (uint64_t)getpid() << 32) | 1;
    if (files && (journal < 0 || !control)) {
        fprintf(stderr, "the shim has no journal or no control\n");
        abort();
    }
}

/* Whether the path is one of the database and not left alone. */
static int is_ours(const char *path) {
    if (!files_bytes || strncmp(path, files, files_bytes) != 0) return 0;
    size_t bytes = strlen(path);
    return strcmp(path + bytes - 4, "-shm") != 0 && strcmp(path + bytes - 4, "-key") != 0;
}

/* The path of an open file, when it is ours; 0 otherwise. Keeps errno. */
static int path_of(int fd, char *path) {
    char link[32];
    int saved = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t bytes = readlink(link, path, PATH_MAX - 1);
    errno = saved;
    path[bytes < 0 ? 0 : bytes] = 0;
    return is_ours(path);
}

/* With the lock held. */
static void keep(enum kind kind, const char *path, uint64_t offset, const void *data, size_t bytes) {
    struct record record = { kind, strlen(path), offset, bytes };
    struct iovec parts[3] = {
        { &record, sizeof record }, { (void *)path, record.path_bytes }, { (void *)data, bytes } };
    ssize_t whole = sizeof record + record.path_bytes + bytes;
    int saved = errno;
    if (writev(journal, parts, 3) != whole) {
        static const char told[] = "the shim's journal cannot be written\n";
        syscall(SYS_write, 2, told, sizeof told - 1);
        abort();
    }
    errno = saved;
}

/* With the lock held: whether this operation fails; errno is set then. xorshift64 (Marsaglia). */
static int fails(uint32_t permille) {
    if (!permille) return 0;
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    if (random_state % 1000 >= permille) return 0;
    errno = control->error;
    return 1;
}

static ssize_t write_at(int fd, const char *path, const void *data, size_t bytes, off_t offset) {
    pthread_mutex_lock(&lock);
    ssize_t written;
    if (fails(control->write_fails_permille)) {
        written = -1;
        if (control->half && bytes > 1) written = real_pwrite(fd, data, bytes / 2, offset);
    } else {
        written = real_pwrite(fd, data, bytes, offset);
    }
    if (written > 0) keep(WRITTEN, path, offset, data, written);
    pthread_mutex_unlock(&lock);
    return written;
}

ssize_t pwrite64(int fd, const void *data, size_t bytes, off_t offset) {
    char path[PATH_MAX];
    if (!real_pwrite) prepare();
    if (!path_of(fd, path)) return real_pwrite(fd, data, bytes, offset);
    return write_at(fd, path, data, bytes, offset);
}

ssize_t pwrite(int fd, const void *data, size_t bytes, off_t offset) {
    return pwrite64(fd, data, bytes, offset);
}

ssize_t write(int fd, const void *data, size_t bytes) {
    char path[PATH_MAX];
    if (!real_write) prepare();
    if (!path_of(fd, path)) return real_write(fd, data, bytes);
    int append = fcntl(fd, F_GETFL) & O_APPEND;
    off_t offset = lseek(fd, 0, append ? SEEK_END : SEEK_CUR);
    ssize_t written = write_at(fd, path, data, bytes, offset);
    if (written > 0) lseek(fd, offset + written, SEEK_SET);
    return written;
}

int ftruncate64(int fd, off_t length) {
    char path[PATH_MAX];
    if (!real_ftruncate) prepare();
    if (!path_of(fd, path)) return real_ftruncate(fd, length);
    pthread_mutex_lock(&lock);
    int result = fails(control->write_fails_permille) ? -1 : real_ftruncate(fd, length);
    if (result == 0) keep(TRUNCATED, path, length, NULL, 0);
    pthread_mutex_unlock(&lock);
    return result;
}

int ftruncate(int fd, off_t length) { return ftruncate64(fd, length); }

static int is_folder(const char *path) {
    return folder_bytes && strlen(path) == folder_bytes && strncmp(path, files, folder_bytes) == 0;
}

static int sync_with(int (*real)(int), int fd) {
    char path[PATH_MAX];
    if (!path_of(fd, path) && !is_folder(path)) return real(fd);
    pthread_mutex_lock(&lock);
    int result = fails(control->sync_fails_permille) ? -1 : real(fd);
    if (result == 0) keep(SYNCED, path, 0, NULL, 0);
    pthread_mutex_unlock(&lock);
    return result;
}

int fsync(int fd) {
    if (!real_fsync) prepare();
    return sync_with(real_fsync, fd);
}

int fdatasync(int fd) {
    if (!real_fdatasync) prepare();
    return sync_with(real_fdatasync, fd);
}

int unlink(const char *path) {
    if (!real_unlink) prepare();
    if (!is_ours(path)) return real_unlink(path);
    pthread_mutex_lock(&lock);
    int result = real_unlink(path);
    if (result == 0) keep(UNLINKED, path, 0, NULL, 0);
    pthread_mutex_unlock(&lock);
    return result;
}

int rename(const char *old, const char *new) {
    if (!real_rename) prepare();
    if (!is_ours(old) && !is_ours(new)) return real_rename(old, new);
    pthread_mutex_lock(&lock);
    int result = real_rename(old, new);
    if (result == 0) keep(RENAMED, old, 0, new, strlen(new));
    pthread_mutex_unlock(&lock);
    return result;
}

int flock(int fd, int operation) {
    if (!real_flock) prepare();
    return unlocked ? 0 : real_flock(fd, operation);
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    int result = syscall(SYS_clock_gettime, clock, time);
    if (result == 0 && control && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
        int64_t offset_ms = control->clock_offset_ms;
        int64_t nanoseconds = time->tv_nsec + offset_ms % 1000 * 1000000;
        time->tv_sec += offset_ms / 1000;
        if (nanoseconds < 0) { nanoseconds += 1000000000; time->tv_sec -= 1; }
        if (nanoseconds >= 1000000000) { nanoseconds -= 1000000000; time->tv_sec += 1; }
        time->tv_nsec = nanoseconds;
    }
    return result;
}
