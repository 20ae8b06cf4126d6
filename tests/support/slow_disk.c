/* A disk that stalls at random: one in four calls of fsync or fdatasync takes up to a second longer. The sequence in a
   process depends only on the environment variable SLOW_FSYNC and the number of earlier calls. The library is loaded
   before the C library (LD_PRELOAD) and replaces these functions. */

#define _GNU_SOURCE
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static atomic_uint_fast64_t count;

static void stall(void) {
    const char *seed = getenv("SLOW_FSYNC");
    if (!seed)
        return;
    uint64_t mixed = strtoull(seed, NULL, 10) * 1000003 + atomic_fetch_add(&count, 1); /* splitmix64 */
    mixed = (mixed + 1) * 0x9e3779b97f4a7c15u;
    mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9u;
    mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111ebu;
    mixed ^= mixed >> 31;
    if (mixed % 4 == 0) {
        struct timespec pause = {0, (mixed >> 2) % 1000000000};
        nanosleep(&pause, NULL);
    }
}

int fsync(int file) {
    stall();
    return syscall(SYS_fsync, file);
}

int fdatasync(int file) {
    stall();
    return syscall(SYS_fdatasync, file);
}
