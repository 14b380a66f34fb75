/* System calls at random: `exact_fuzz SEED CHILDREN NUMBER... [- NUMBER...]`, the second list by int $0x80.

   Each child makes some hundred calls with descriptors, addresses and flags that make sense to some of
   them. How it ends is its own business; it is killed when a call does not return. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define CALLS 300
#define POOL 64
#define BOARD 0xd0000000

static long numbers[2][200];
static int counts[2];
static uint64_t pool[POOL];
static int filled;
static uint64_t state;

static uint64_t next(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

static void add(uint64_t value)
{
    pool[filled++] = value;
}

static uint64_t argument(void)
{
    uint64_t random = next();

    switch (random % 8) {
    case 0:
        return next();
    case 1:
        return next() % 4097;
    case 2:
        return pool[next() % filled] + next() % 9 - 4;
    default:
        return pool[next() % filled];
    }
}

static void fill(void)
{
    static const char *paths[] = {"/dev/mem", "/proc/bus/pci/00/00.0", "/dev/null"};
    static uint64_t vectors[4];
    char *plain = mmap(NULL, 8 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    int ends[2];

    for (int i = 0; i < 3; i++)
        add(open(paths[i], O_RDWR));
    for (int fd = 0; fd < 3; fd++)
        dup2(pool[2], fd); /* small numbers are descriptors too */
    void *shared = mmap(NULL, 4 * 4096, PROT_READ, MAP_SHARED, pool[0], BOARD);
    char *private = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_32BIT, pool[0], BOARD);
    vectors[0] = vectors[2] = (uintptr_t)shared;
    vectors[1] = vectors[3] = 64;
    if (private != MAP_FAILED)
        *private = 1; /* a copy of its own; SIGBUS if a driver was faster */
    if (!pipe(ends)) {
        add(ends[0]);
        add(ends[1]);
    }
    mprotect(plain + 4096, 4096, PROT_READ);
    mprotect(plain + 2 * 4096, 4096, PROT_NONE);
    strcpy(plain + 64, paths[0]);
    const uint64_t values[] = {
        0, 1, 2, 3, 4, 5, 8, 21, 22, 64, 77, 4096, 8192, 65536, 0x541b, 0x50434900, 0x50434902, 0x50434903,
        0x1000, 0x1100, 0x6000, 0x4000, 0x100000, 0xf0000, 0x7fffffff, 0x80000000, 0xffffffff, 1UL << 63, -1UL,
        -4096UL, -100UL, (uintptr_t)plain, (uintptr_t)plain + 64, (uintptr_t)plain + 4096,
        (uintptr_t)plain + 8192, (uintptr_t)plain + 4092, (uintptr_t)shared, (uintptr_t)shared + 4096,
        (uintptr_t)private, (uintptr_t)vectors, 0x7ff, 0x20080522, getpid(),
    };
    for (unsigned i = 0; i < sizeof values / sizeof *values; i++)
        add(values[i]);
}

static void one(void)
{
    int table = counts[1] && next() % 3 == 0;
    long number = numbers[table][next() % counts[table]];
    uint64_t words[6];

    for (int i = 0; i < 6; i++)
        words[i] = argument();
    if (!table) {
        /* Of other processes only our own memory. */
        if (number == SYS_process_vm_readv || number == SYS_process_vm_writev)
            words[0] = getpid();
        syscall(number, words[0], words[1], words[2], words[3], words[4], words[5]);
        return;
    }
#ifdef __x86_64__
    long result;
    if (number == 347 || number == 348)
        words[0] = getpid();
    __asm__ volatile("int $0x80"
                     : "=a"(result)
                     : "0"(number), "b"(words[0]), "c"(words[1]), "d"(words[2]), "S"(words[3]), "D"(words[4])
                     : "memory", "r8", "r9", "r10", "r11");
#endif
}

int main(int count, char **words)
{
    int table = 0;

    for (int i = 3; i < count; i++)
        if (!strcmp(words[i], "-"))
            table = 1;
        else
            numbers[table][counts[table]++] = atol(words[i]);
    for (int child = 0; child < atoi(words[2]); child++) {
        pid_t pid = fork();
        if (pid == 0) {
            state = (strtoul(words[1], NULL, 0) + child) * 0x9e3779b97f4a7c15 + 1;
            setpgid(0, 0);
            fill();
            alarm(3);
            for (int i = 0; i < CALLS; i++)
                one();
            _exit(0);
        }
        waitpid(pid, NULL, 0);
    }
    puts("done");
    return 0;
}
