// Preloaded into workerd: adds an offset to the wall clock, so that a test can let a day pass at once, and
// stops it, so that a test can stand on the very millisecond it asks about. Both are read anew at every call
// from a file that the test writes (MOVED_CLOCK_FILE: two little-endian int64 in milliseconds, the offset
// and the moment at which the clock was stopped, 0 while it runs). Timers run on the monotonic clock, which
// stays as it is.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t *moved; // offset, stopped at
static int (*real_clock_gettime)(clockid_t, struct timespec *);

__attribute__((constructor)) static void open_clock(void) {
    real_clock_gettime = dlsym(RTLD_NEXT, "clock_gettime");
    // A test runner that is killed takes its workerd along.
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    const char *path = getenv("MOVED_CLOCK_FILE");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *page = mmap(NULL, 2 * sizeof *moved, PROT_READ, MAP_SHARED, file, 0);
    if (page != MAP_FAILED) moved = page;
    close(file);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    // Other constructors may ask for the time before ours has run.
    if (!real_clock_gettime) real_clock_gettime = dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real_clock_gettime(clock, now);
    if (failed || !moved || (clock != CLOCK_REALTIME && clock != CLOCK_REALTIME_COARSE)) return failed;
    int64_t offset_ms = moved[0], stopped_ms = moved[1];
    if (stopped_ms) {
        now->tv_sec = stopped_ms / 1000;
        now->tv_nsec = stopped_ms % 1000 * 1000000;
    }
    int64_t ns = now->tv_nsec + (offset_ms % 1000) * 1000000;
    now->tv_sec += offset_ms / 1000;
    if (ns < 0) {
        ns += 1000000000;
        now->tv_sec -= 1;
    } else if (ns >= 1000000000) {
        ns -= 1000000000;
        now->tv_sec += 1;
    }
    now->tv_nsec = ns;
    return 0;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    (void)zone;
    struct timespec precise;
    int failed = clock_gettime(CLOCK_REALTIME, &precise);
    if (failed) return failed;
    now->tv_sec = precise.tv_sec;
    now->tv_usec = precise.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *result) {
    struct timespec precise;
    if (clock_gettime(CLOCK_REALTIME, &precise)) return (time_t)-1;
    if (result) *result = precise.tv_sec;
    return precise.tv_sec;
}
