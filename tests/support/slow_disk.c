/* A disk that stalls. The library is loaded before the C library (LD_PRELOAD) and replaces fsync and fdatasync.

   With the environment variable SLOW_FSYNC, one in four calls takes up to a second longer. The sequence in a process
   depends only on the variable and the number of earlier calls. With STUCK_FSYNC, the path of a file, every call waits
   while that file exists; the first call that waits makes an empty file of the same name with ".reached" behind it. */

#define _GNU_SOURCE
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static atomic_uint_fast64_t count;

static void stall(void) {
    const char *stuck = getenv("STUCK_FSYNC");
    struct timespec look = {0, 2000000};
    if (stuck && access(stuck, F_OK) == 0) {
        char reached[4096];
        snprintf(reached, sizeof reached, "%s.reached", stuck);
        close(open(reached, O_CREAT | O_WRONLY, 0600));
        while (access(stuck, F_OK) == 0)
            nanosleep(&look, NULL);
    }
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
