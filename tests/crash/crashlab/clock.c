/* Shifts the readings of CLOCK_REALTIME by a number of nanoseconds that lies in a file, so that the clock of running
 * processes can be set. For tests; LD_PRELOAD it with CRASHLAB_CLOCK=<file of 8 bytes>.
 *
 * Only readings are shifted. The monotonic clocks, sleeps and time-outs go on as they do when an administrator sets the
 * clock, and the times of files, which the kernel gives, stay right.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <semaphore.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000LL

static const int64_t none;
static const int64_t *shared;

/* Lazily, since the constructors of other libraries read the clock as well; a race maps the file twice, no harm. */
static int64_t offset(void)
{
    const int64_t *place = __atomic_load_n(&shared, __ATOMIC_ACQUIRE);
    if (place == NULL) {
        const char *path = getenv("CRASHLAB_CLOCK");
        int file = path == NULL ? -1 : open(path, O_RDONLY | O_CLOEXEC);
        void *found = file < 0 ? MAP_FAILED : mmap(NULL, sizeof none, PROT_READ, MAP_SHARED, file, 0);
        if (file >= 0)
            close(file);
        place = found == MAP_FAILED ? &none : found;
        __atomic_store_n(&shared, place, __ATOMIC_RELEASE);
    }
    return __atomic_load_n(place, __ATOMIC_RELAXED);
}

static void shift(struct timespec *time, int64_t by)
{
    int64_t nanoseconds = time->tv_nsec + by % SECOND;
    time->tv_sec += by / SECOND;
    if (nanoseconds < 0) {
        nanoseconds += SECOND;
        time->tv_sec--;
    } else if (nanoseconds >= SECOND) {
        nanoseconds -= SECOND;
        time->tv_sec++;
    }
    time->tv_nsec = nanoseconds;
}

int clock_gettime(clockid_t clock, struct timespec *time)
{
    static int (*real)(clockid_t, struct timespec *);
    if (real == NULL)
        real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(clock, time);
    if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        shift(time, offset());
    return result;
}

int gettimeofday(struct timeval *restrict time, void *restrict zone)
{
    struct timespec now;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &now) != 0)
        return -1;
    time->tv_sec = now.tv_sec;
    time->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *place)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (place != NULL)
        *place = now.tv_sec;
    return now.tv_sec;
}

/* Waits until a time of the real-time clock, which the caller read shifted and the kernel does not. */
int sem_timedwait(sem_t *restrict semaphore, const struct timespec *restrict until)
{
    static int (*real)(sem_t *, const struct timespec *);
    struct timespec shifted = *until;
    if (real == NULL)
        real = (int (*)(sem_t *, const struct timespec *))dlsym(RTLD_NEXT, "sem_timedwait");
    shift(&shifted, -offset());
    return real(semaphore, &shifted);
}
