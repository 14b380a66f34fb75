/* Processes that store counters through mappings of /dev/mem while drivers come and go.
 *
 *   storm ADDRESS PROCESSES
 *
 * Each process has a word of its own in the page at ADDRESS, which is claimed and released from outside, and one in
 * the page after it, which never is. It stores an ever higher number in both, from what is there on, and reads them back. When a store or load
 * meets SIGBUS it opens and maps anew, until it may (a mapping that is refused counts as a fault); then both words must hold what it stored last. Ends when stdin
 * does, and prints one line: stores, faults, words that were not what they should be, other failures.
 *
 *   storm pong ADDRESS TURNS
 *
 * Two processes count one word up in turns, one through a mapping made before the first line of input, the other
 * through one that is opened and mapped after it. Prints the last number.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "turns.h"

enum { PAGE = 4096, MOST = 64 };

struct tally { uint64_t stores, faults, stale, failures; volatile int ready; };
static struct tally *tallies;
static volatile int *stop;
static sigjmp_buf back;
static volatile uintptr_t fault_at;

static void on_fault(int number, siginfo_t *info, void *context)
{
    (void)number, (void)context;
    fault_at = (uintptr_t)info->si_addr;
    siglongjmp(back, 1);
}

static volatile uint64_t *map(off_t address, int *fd)
{
    *fd = open("/dev/mem", O_RDWR | O_CLOEXEC);
    if (*fd < 0)
        return NULL;
    void *at = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, *fd, address);
    return at == MAP_FAILED ? NULL : at;
}

/* One life of a mapping: until a fault, or the end. `first` and `second` outlive the jump. */
static void work(off_t address, int word, struct tally *tally, volatile uint64_t *first, volatile uint64_t *second)
{
    int fd;
    volatile uint64_t *words = map(address, &fd);
    if (!words) {
        if (fd >= 0 && errno == EPERM)
            tally->faults++; /* refused at once, where the exact layer says so */
        else
            tally->failures++;
        if (fd >= 0)
            close(fd);
        return;
    }
    volatile uint64_t *claimed = words + word, *free_page = words + PAGE / 8 + word;
    if (sigsetjmp(back, 1)) {
        tally->faults++;
        if (fault_at - (uintptr_t)words >= PAGE)
            tally->failures++;   /* the free page must never fault */
    } else {
        if (*free_page != *second)
            tally->stale++;
        if (*claimed != *first)
            tally->stale++;
        while (!*stop) {
            *claimed = *first + 1;
            *first += 1;
            *free_page = *second + 1;
            *second += 1;
            tally->stores += 2;
            if (*claimed != *first || *free_page != *second)
                tally->stale++;
        }
    }
    munmap((void *)words, 2 * PAGE);
    close(fd);
}

static void run(off_t address, int word, struct tally *tally)
{
    static volatile uint64_t first, second;
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
    sigaction(SIGBUS, &action, NULL);
    int fd;
    volatile uint64_t *words = map(address, &fd);
    if (words) { /* counting goes on from what is there */
        first = words[word];
        second = words[PAGE / 8 + word];
        munmap((void *)words, 2 * PAGE);
        close(fd);
    }
    tally->ready = 1;
    while (!*stop)
        work(address, word, tally, &first, &second);
    _exit(0);
}

static int pong(off_t address, uint64_t turns)
{
    int fd;
    char byte;
    volatile uint64_t *ours = map(address, &fd);
    if (!ours)
        return 1;
    *ours = 0;
    printf("ready\n");
    fflush(stdout);
    if (read(0, &byte, 1) != 1)
        return 1;
    pid_t child = fork();
    if (child == 0)
        ours = map(address, &fd);
    take_turns(ours, child == 0, turns);
    if (child == 0)
        _exit(0);
    wait(NULL);
    printf("%llu\n", (unsigned long long)*ours);
    return 0;
}

int main(int count, char **words)
{
    if (count == 4)
        return pong((off_t)strtoull(words[2], NULL, 0), strtoull(words[3], NULL, 0));
    if (count != 3)
        return 2;
    off_t address = (off_t)strtoull(words[1], NULL, 0);
    int processes = atoi(words[2]);
    char *shared = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED || processes > MOST)
        return 1;
    stop = (volatile int *)shared;
    tallies = (struct tally *)(shared + 64);
    for (int n = 0; n < processes; n++)
        if (fork() == 0)
            run(address, n, tallies + n);
    for (int n = 0; n < processes; n++)
        while (!tallies[n].ready)
            usleep(1000);
    printf("ready\n");
    fflush(stdout);
    char byte;
    while (read(0, &byte, 1) > 0)
        ;
    *stop = 1;
    struct tally sum = {0};
    while (wait(NULL) > 0 || errno == EINTR)
        ;
    for (int n = 0; n < processes; n++) {
        sum.stores += tallies[n].stores;
        sum.faults += tallies[n].faults;
        sum.stale += tallies[n].stale;
        sum.failures += tallies[n].failures;
    }
    printf("%llu %llu %llu %llu\n", (unsigned long long)sum.stores, (unsigned long long)sum.faults,
           (unsigned long long)sum.stale, (unsigned long long)sum.failures);
    return 0;
}
