// Preloaded into workerd: what it wants to write to files fails while a test says so, with the errno in a file
// that the test writes (FAILING_DISK_FILE: one little-endian int64; 0: all is well).
//
//   ENOSPC  nothing can be written or made longer
//   EROFS   nor opened for writing, nor removed
//   EIO     nor flushed
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static const volatile int64_t *failing;

__attribute__((constructor)) static void open_switch(void) {
    const char *path = getenv("FAILING_DISK_FILE");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *page = mmap(NULL, sizeof *failing, PROT_READ, MAP_SHARED, file, 0);
    if (page != MAP_FAILED) failing = page;
    close(file);
}

static int error_now(void) { return failing ? (int)*failing : 0; }

// Pipes and sockets are no disk.
static int fails(int file) {
    struct stat told;
    int error = error_now();
    if (!error || fstat(file, &told) || !S_ISREG(told.st_mode)) return 0;
    errno = error;
    return 1;
}

#define REAL(name) \
    static __typeof__(name) *real; \
    if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

#define ON_FILE(type, name, parameters, arguments) \
    type name parameters { \
        REAL(name); \
        return fails(file) ? -1 : real arguments; \
    }

ON_FILE(ssize_t, write, (int file, const void *bytes, size_t count), (file, bytes, count))
ON_FILE(ssize_t, writev, (int file, const struct iovec *parts, int count), (file, parts, count))
ON_FILE(ssize_t, pwrite, (int file, const void *bytes, size_t count, off_t at), (file, bytes, count, at))
ON_FILE(ssize_t, pwrite64, (int file, const void *bytes, size_t count, off64_t at), (file, bytes, count, at))
ON_FILE(int, ftruncate, (int file, off_t length), (file, length))
ON_FILE(int, ftruncate64, (int file, off64_t length), (file, length))

#define FLUSH(name) \
    int name(int file) { \
        REAL(name); \
        return error_now() == EIO && fails(file) ? -1 : real(file); \
    }

FLUSH(fsync)
FLUSH(fdatasync)

static int is_refused(int flags) {
    if (error_now() != EROFS || (flags & O_ACCMODE) == O_RDONLY) return 0;
    errno = EROFS;
    return 1;
}

#define OPEN(name, parameters, arguments) \
    int name parameters { \
        REAL(name); \
        mode_t mode = 0; \
        if (flags & (O_CREAT | O_TMPFILE)) { \
            va_list rest; \
            va_start(rest, flags); \
            mode = va_arg(rest, mode_t); \
            va_end(rest); \
        } \
        return is_refused(flags) ? -1 : real arguments; \
    }

OPEN(open, (const char *path, int flags, ...), (path, flags, mode))
OPEN(open64, (const char *path, int flags, ...), (path, flags, mode))
OPEN(openat, (int folder, const char *path, int flags, ...), (folder, path, flags, mode))
OPEN(openat64, (int folder, const char *path, int flags, ...), (folder, path, flags, mode))

int unlink(const char *path) {
    REAL(unlink);
    return is_refused(O_WRONLY) ? -1 : real(path);
}

int unlinkat(int folder, const char *path, int flags) {
    REAL(unlinkat);
    return is_refused(O_WRONLY) ? -1 : real(folder, path, flags);
}
