/* Calls with bad pointers, flags and descriptors on a character device: `exact_calls PATH`.

   Prints one line a call: its name, the argument, and "ok" or the errno. The same program says what
   the kernel does with a device of its own. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define GARBAGE (0x5a5aUL << 32)

struct place {
    const char *name;
    uintptr_t address;
    int readable;
};

static int device, null, ends[2];
static char *low; /* two pages below 4 GiB, the second of them not there */

static void say(const char *call, const char *argument, long result)
{
    printf("%s %s %s\n", call, argument, result < 0 ? strerrorname_np(errno) : "ok");
}

#ifdef __x86_64__
/* The registers as they are: upper halves are the caller's garbage. */
static long int80(long number, long a, long b, long c, long d, long e)
{
    long result;
    __asm__ volatile("int $0x80"
                     : "=a"(result)
                     : "a"(number), "b"(a), "c"(b), "d"(c), "S"(d), "D"(e)
                     : "memory", "r8", "r9", "r10", "r11");
    if ((int)result < 0 && (int)result > -4096) {
        errno = -(int)result;
        return -1;
    }
    return (int)result;
}
#endif

static void pointer(struct place place)
{
    void *at = (void *)place.address;
    char room[256];
    const char *name = place.name;

    say("fstat", name, syscall(SYS_fstat, device, at));
    say("newfstatat-buffer", name, syscall(SYS_newfstatat, device, "", at, AT_EMPTY_PATH));
    if (at)
        say("newfstatat-path", name, syscall(SYS_newfstatat, device, at, room, AT_EMPTY_PATH));
    say("statx-buffer", name, syscall(SYS_statx, device, "", AT_EMPTY_PATH, 0x7ff, at));
    if (at) {
        say("statx-path", name, syscall(SYS_statx, device, at, AT_EMPTY_PATH, 0x7ff, room));
    }
    if (at && !place.readable) {
        say("sendfile", name, syscall(SYS_sendfile, null, device, at, 0));
        say("splice-out", name, syscall(SYS_splice, device, at, ends[1], NULL, 1, 0));
        say("splice-in", name, syscall(SYS_splice, ends[0], NULL, device, at, 1, 0));
        say("splice-pipe", name, syscall(SYS_splice, device, NULL, ends[1], at, 1, 0));
        say("copy_file_range", name, syscall(SYS_copy_file_range, device, at, null, NULL, 1, 0));
    }
}

static void flags(void)
{
    struct stat room;
    char extended[256];

    say("newfstatat-flags", "unknown", syscall(SYS_newfstatat, device, "", &room, AT_EMPTY_PATH | 0x40000));
    say("newfstatat-flags", "known", syscall(SYS_newfstatat, device, "", &room, AT_EMPTY_PATH | 0x900));
    say("newfstatat-flags", "garbage", syscall(SYS_newfstatat, device, "", &room, AT_EMPTY_PATH | GARBAGE));
    say("newfstatat-path", "name", syscall(SYS_newfstatat, device, "name", &room, AT_EMPTY_PATH));
    say("newfstatat-path", "root", syscall(SYS_newfstatat, device, "/", &room, AT_EMPTY_PATH));
    say("newfstatat-path", "cwd", syscall(SYS_newfstatat, AT_FDCWD, "", &room, AT_EMPTY_PATH));
    say("statx-flags", "sync", syscall(SYS_statx, device, "", AT_EMPTY_PATH | 0x6000, 0x7ff, extended));
    say("statx-flags", "unknown", syscall(SYS_statx, device, "", AT_EMPTY_PATH | 0x100000, 0x7ff, extended));
    say("statx-flags", "mask", syscall(SYS_statx, device, "", AT_EMPTY_PATH, 1U << 31, extended));
    say("statx-flags", "nothing", syscall(SYS_statx, device, "", AT_EMPTY_PATH, 0, extended));
    say("lseek", "garbage", syscall(SYS_lseek, device, 0, GARBAGE));
}

static void descriptors(void)
{
    static const struct place bad[] = {
        {"minus-one", -1UL, 0}, {"least", 0x80000000UL, 0}, {"high", 1000, 0}, {"closed", 77, 0},
    };
    struct stat room;

    for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
        unsigned long fd = bad[i].address;
        const char *name = bad[i].name;
        say("fstat-fd", name, syscall(SYS_fstat, fd, &room));
        say("lseek-fd", name, syscall(SYS_lseek, fd, 0, SEEK_END));
        say("ioctl-fd", name, syscall(SYS_ioctl, fd, 0x541b, &room));
        say("mmap-fd", name, syscall(SYS_mmap, 0, 4096, PROT_READ, MAP_SHARED, fd, 0));
        say("fsync-fd", name, syscall(SYS_fsync, fd));
        say("sendfile-in", name, syscall(SYS_sendfile, null, fd, NULL, 1));
        say("sendfile-out", name, syscall(SYS_sendfile, fd, device, NULL, 1));
        say("splice-out", name, syscall(SYS_splice, device, NULL, fd, NULL, 1, 0));
        say("copy_file_range", name, syscall(SYS_copy_file_range, device, NULL, fd, NULL, 1, 0));
    }
    int reading = open("/dev/null", O_RDONLY);
    say("sendfile-out", "reading", syscall(SYS_sendfile, reading, device, NULL, 1));
    say("fstat-fd", "garbage", syscall(SYS_fstat, GARBAGE | device, &room));
    say("mmap", "nothing", syscall(SYS_mmap, 0, 0, PROT_READ, MAP_SHARED, device, 0));
    say("mmap", "offset", syscall(SYS_mmap, 0, 4096, PROT_READ, MAP_SHARED, device, 5));
    say("mmap", "type", syscall(SYS_mmap, 0, 4096, PROT_READ, 0, device, 0));
    say("mmap", "length", syscall(SYS_mmap, 0, -1UL, PROT_READ, MAP_SHARED, device, 0));
}

#ifdef __x86_64__
static void compat(void)
{
    const struct place places[] = {
        {"good", (uintptr_t)low, 1},
        {"null", 0, 0},
        {"wild", 0xdeadb000, 0},
        {"kernel", 0xfffff000, 0},
        {"across", (uintptr_t)low + 4096 - 8, 0},
    };
    low[2048] = 0;
    for (unsigned i = 0; i < sizeof places / sizeof *places; i++) {
        long at = places[i].address;
        const char *name = places[i].name;
        say("i386-fstat64", name, int80(197, device, at, 0, 0, 0));
        say("i386-fstat64-garbage", name, int80(197, GARBAGE | device, GARBAGE | at, 0, 0, 0));
        say("i386-fstatat64", name, int80(300, device, (long)low + 2048, at, AT_EMPTY_PATH, 0));
        say("i386-statx", name, int80(383, GARBAGE | device, GARBAGE | ((long)low + 2048),
                                      GARBAGE | AT_EMPTY_PATH, GARBAGE | 0x7ff, GARBAGE | at));
    }
    say("i386-mmap2", "offset", int80(192, 0, 4096, PROT_READ, 0, device));
    say("i386-fstat64-fd", "minus-one", int80(197, -1, (long)low, 0, 0, 0));
}
#endif

int main(int count, char **words)
{
    if (count != 2 || (device = open(words[1], O_RDWR)) < 0 || pipe(ends) < 0)
        return 2;
    null = open("/dev/null", O_RDWR);
    fcntl(ends[0], F_SETFL, O_NONBLOCK);
    setvbuf(stdout, NULL, _IOLBF, 0);
    char *good = mmap(NULL, 3 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect(good + 4096, 4096, PROT_READ);
    munmap(good + 2 * 4096, 4096);
    low = mmap(NULL, 2 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    munmap(low + 4096, 4096);
    char *none = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    const struct place places[] = {
        {"good", (uintptr_t)good, 1},
        {"null", 0, 0},
        {"small", 8, 0},
        {"wild", 0xdeadbeef000, 0},
        {"kernel", 0xffff888000000000, 0},
        {"hole", 0x8000000000000000, 0},
        {"last", ~0UL, 0},
        {"none", (uintptr_t)none, 0},
        {"constant", (uintptr_t)good + 4096, 1},
        {"across", (uintptr_t)low + 4096 - 4, 0},
        {"string", (uintptr_t)"constant", 1},
    };
    for (unsigned i = 0; i < sizeof places / sizeof *places; i++)
        pointer(places[i]);
    flags();
    descriptors();
#ifdef __x86_64__
    compat();
#endif
    return 0;
}
