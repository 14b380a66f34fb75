/* Calls on a mapping of /dev/mem, before and after a claim of its first page: `exact_memory ADDRESS`.

   Prints one line a call: its name, and "ok" or the errno. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096UL
#define LENGTH (4 * PAGE)

static const struct {
    const char *name;
    int number;
} advice[] = {
    {"NORMAL", 0}, {"RANDOM", 1}, {"WILLNEED", 3}, {"FREE", 8}, {"REMOVE", 9}, {"DONTFORK", 10},
    {"DOFORK", 11}, {"DONTDUMP", 16}, {"DODUMP", 17}, {"WIPEONFORK", 18}, {"COLD", 20},
    {"PAGEOUT", 21}, {"POPULATE_READ", 22}, {"POPULATE_WRITE", 23}, {"DONTNEED_LOCKED", 24},
};

static sigjmp_buf caught;
static int device;

static void bus(int number)
{
    siglongjmp(caught, number);
}

static void say(const char *name, long result)
{
    printf("%s %s\n", name, result == -1 ? strerrorname_np(errno) : "ok");
}

static void touch(const char *name, volatile char *at)
{
    if (!sigsetjmp(caught, 1)) {
        (void)*at;
        errno = 0;
        say(name, 0);
    } else {
        printf("%s SIGBUS\n", name);
    }
}

static void locks(const char *when, char *at, char *other)
{
    char name[64];
#define NAMED(x) (snprintf(name, sizeof name, "%s %s", when, x), name)
    say(NAMED("mlock"), mlock(at, PAGE));
    say(NAMED("mlock2"), mlock2(at + 1, PAGE, MLOCK_ONFAULT));
    say(NAMED("mlock to the end"), mlock(at + LENGTH - PAGE + 1, PAGE - 1));
    say(NAMED("mlock2 flags"), mlock2(at, PAGE, 8));
    say(NAMED("mlock hole"), mlock(at, LENGTH + 2 * PAGE));
    say(NAMED("munlock"), munlock(at, PAGE));
    say(NAMED("mlockall"), mlockall(MCL_CURRENT));
    say(NAMED("mlockall flags"), mlockall(8));
    say(NAMED("munlockall"), munlockall());
    say(NAMED("mlock other"), mlock(other, PAGE));
    munlock(other, PAGE);
    for (unsigned i = 0; i < sizeof advice / sizeof *advice; i++) {
        char word[32];
        snprintf(word, sizeof word, "madvise %s", advice[i].name);
        say(NAMED(word), madvise(at, PAGE, advice[i].number));
    }
    say(NAMED("madvise unaligned"), madvise(at + 1, PAGE, MADV_COLD));
    say(NAMED("madvise nothing"), madvise(at, 0, MADV_COLD));
    say(NAMED("madvise other"), madvise(other, PAGE, MADV_COLD));
#undef NAMED
}

static void moves(char *at)
{
    char *other = mmap(NULL, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *room = mmap(NULL, LENGTH, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    say("mremap grow", (long)mremap(at, LENGTH, 2 * LENGTH, MREMAP_MAYMOVE));
    say("mremap grow in place", (long)mremap(at, LENGTH, 2 * LENGTH, 0));
    say("mremap copy", (long)mremap(at, 0, LENGTH, MREMAP_MAYMOVE));
    say("mremap dontunmap", (long)mremap(at, LENGTH, LENGTH, MREMAP_MAYMOVE | MREMAP_DONTUNMAP));
    say("mremap flags", (long)mremap(at, LENGTH, 2 * LENGTH, 64));
    char *copy = mmap(NULL, LENGTH, PROT_READ, MAP_PRIVATE, device, 0xd0000000);
    say("mremap copy of private", (long)mremap(copy, 0, LENGTH, MREMAP_MAYMOVE));
    say("mremap move", (long)mremap(copy, LENGTH, LENGTH, MREMAP_MAYMOVE | MREMAP_FIXED, room));
    touch("moved", room);
    say("mremap shrink", (long)mremap(room, LENGTH, PAGE, 0));
    say("mremap other", (long)mremap(other, PAGE, 2 * PAGE, MREMAP_MAYMOVE));
}

static void pages(char *at)
{
    unsigned char seen[4] = {7, 7, 7, 7};
    (void)*(volatile char *)at;
    say("mincore", mincore(at, LENGTH, seen));
    printf("mincore pages %d%d%d%d\n", seen[0], seen[1], seen[2], seen[3]);
    say("mincore wild", mincore(at, LENGTH, (void *)8));
    say("remap_file_pages refused", syscall(SYS_remap_file_pages, at + 3 * PAGE, PAGE, 0, 0x200, 0));
    say("remap_file_pages", syscall(SYS_remap_file_pages, at + 3 * PAGE, PAGE, 0, 0xd0001, 0));
    printf("remapped %d\n", !memcmp(at + PAGE, at + 3 * PAGE, 8));

    char room[16], text[16] = "text";
    struct iovec here = {room, 16}, there = {at, 16}, own = {text, 16};
    say("process_vm_readv", process_vm_readv(getpid(), &here, 1, &there, 1, 0));
    say("process_vm_writev", process_vm_writev(getpid(), &here, 1, &there, 1, 0));
    say("process_vm_readv own", process_vm_readv(getpid(), &here, 1, &own, 1, 0));
    say("process_vm_readv into", process_vm_readv(getpid(), &there, 1, &own, 1, 0));
    int ends[2];
    if (pipe(ends) < 0)
        exit(2);
    say("vmsplice", vmsplice(ends[1], &there, 1, SPLICE_F_NONBLOCK));
    say("vmsplice own", vmsplice(ends[1], &own, 1, SPLICE_F_NONBLOCK));
    say("vmsplice from", vmsplice(ends[0], &there, 1, SPLICE_F_NONBLOCK));
}

#ifdef __x86_64__
static long int80(long number, unsigned long a, unsigned long b, unsigned long c)
{
    long result;
    __asm__ volatile("int $0x80"
                     : "=a"(result)
                     : "a"(number), "b"(a), "c"(b), "d"(c)
                     : "memory", "r8", "r9", "r10", "r11");
    if ((int)result < 0 && (int)result > -4096) {
        errno = -(int)result;
        return -1;
    }
    return (int)result;
}

static void compat(void)
{
    char *low = mmap(NULL, PAGE, PROT_READ, MAP_SHARED | MAP_32BIT, device, 0xd0001000);
    say("i386 madvise", int80(219, (unsigned long)low | 1UL << 40, PAGE, MADV_COLD));
    say("i386 mlock", int80(150, (unsigned long)low, PAGE, 0));
}
#endif

static void empties(void)
{
    char room[8] = {0};
    say("pread nothing", pread(device, room, 0, 0));
    say("pread nothing low", pread(device, room, 0, 0x1000));
    say("pread nothing ram", pread(device, room, 0, 0x200000));
    say("pread nothing far", pread(device, room, 0, 1L << 52));
    say("pread nothing negative", pread(device, room, 0, -1));
    say("pwrite nothing", pwrite(device, room, 0, 0));
    int reading = open("/dev/mem", O_RDONLY), zero = open("/dev/zero", O_RDWR);
    say("pwrite nothing reading", pwrite(reading, room, 0, 0));
    say("pread nothing closed", pread(77, room, 0, 0));
    say("pread nothing other", pread(zero, room, 0, 0));
}

int main(int count, char **words)
{
    if (count != 2 || (device = open("/dev/mem", O_RDWR)) < 0)
        return 2;
    setvbuf(stdout, NULL, _IOLBF, 0);
    signal(SIGBUS, bus);
    char *other = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    /* With a hole behind it. */
    char *at = mmap(NULL, LENGTH + PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    munmap(at + LENGTH, PAGE);
    off_t board = strtol(words[1], NULL, 16);
    if (mmap(at, LENGTH, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, device, board) != at)
        return 3;
    touch("before", at);
    locks("before", at, other);
    moves(at);
    pages(at);
    empties();
#ifdef __x86_64__
    compat();
#endif
    if (system("fakedev ctl claim d0000000-d0000fff --name driver >/dev/null"))
        return 4;
    touch("after", at);
    touch("after beside", at + PAGE);
    locks("after", at, other);
    touch("in the end", at);
    char *made = mmap(NULL, PAGE, PROT_READ, MAP_SHARED | MAP_POPULATE | MAP_LOCKED, device, 0xd0001000);
    say("mmap populate", (long)made);
    touch("populated", made);
    return 0;
}
