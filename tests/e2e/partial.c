/* Reads and writes that begin in allowed memory and end in refused memory: `partial [-t THREADS] ADDRESS`.

   ADDRESS is the first refused byte; four pages before it are allowed. Prints a line a call: its name, the
   result or errno, how many bytes of the buffer are those of the memory, and the position behind it. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096
#define ROUNDS 60
#define UNTOUCHED 0xa5

static int device;
static off_t border;
static uint8_t memory[4 * PAGE]; /* what is before the border */

static int moved(const uint8_t *buffer, long size, off_t from)
{
    long good = 0;
    while (good < size && from + good < border && buffer[good] == memory[from + good - border + (long)sizeof memory])
        good++;
    for (long at = good; at < size; at++)
        if (buffer[at] != UNTOUCHED)
            return -1;
    return (int)good;
}

static void say(const char *name, long result, int bytes)
{
    char number[24];
    snprintf(number, sizeof number, "%ld", result);
    printf("%s: %s %d +%ld\n", name, result < 0 ? strerrorname_np(errno) : number, bytes,
           (long)(lseek(device, 0, SEEK_CUR) - border));
}

static uint8_t *fresh(uint8_t *buffer, long size)
{
    lseek(device, border - 8, SEEK_SET);
    return memset(buffer, UNTOUCHED, (size_t)size);
}

#define TRY(name, buffer, size, from, call)                                                              \
    do {                                                                                                 \
        fresh(buffer, size);                                                                             \
        long result_ = (call);                                                                           \
        say(name, result_, moved(buffer, size, from));                                                   \
    } while (0)

static void plain(uint8_t *b)
{
    off_t at = border - 8;
    TRY("read", b, 16, at, read(device, b, 16));
    TRY("pread", b, 16, at, pread(device, b, 16, at));
    TRY("pread unaligned", b + 3, 9, border - 7, pread(device, b + 3, 9, border - 7));
    TRY("pread pages", b, 4 * PAGE, border - PAGE - 1, pread(device, b, 4 * PAGE, border - PAGE - 1));
    TRY("pread refused", b, 16, border, pread(device, b, 16, border));
    TRY("pread allowed", b, 8, at, pread(device, b, 8, at));
}

static void vectors(uint8_t *b)
{
    off_t at = border - 8;
    struct iovec two[] = {{b, 8}, {b + 8, 8}}, three[] = {{b, 4}, {b + 4, 8}, {b + 12, 4}},
                 gaps[] = {{b, 5}, {NULL, 0}, {b + 5, 3}, {b + 9, 0}, {b + 8, 8}}, one[] = {{b, 16}},
                 wild[] = {{b, 4}, {b + 4, 8}, {(void *)8, 8}};
    TRY("readv", b, 16, at, readv(device, two, 2));
    TRY("readv inside", b, 16, at, readv(device, three, 3));
    TRY("readv gaps", b, 16, at, readv(device, gaps, 5));
    TRY("readv one", b, 16, at, readv(device, one, 1));
    TRY("preadv", b, 16, at, preadv(device, two, 2, at));
    TRY("preadv inside", b, 16, at, preadv(device, three, 3, at));
    TRY("preadv wild", b, 16, at, preadv(device, wild, 3, at));
    TRY("preadv2", b, 16, at, preadv2(device, two, 2, at, 0));
    TRY("preadv2 here", b, 16, at, preadv2(device, three, 3, -1, 0));
}

static uint8_t *pages(int prot, int flags, int fd, off_t offset)
{
    uint8_t *found = mmap(NULL, 2 * PAGE, prot, flags, fd, offset);
    if (found == MAP_FAILED) {
        perror("mmap");
        exit(1);
    }
    return found;
}

static void buffers(void)
{
    off_t at = border - 8;
    uint8_t *b = pages(PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), *half = b + PAGE - 12;
    munmap(b + PAGE, PAGE);
    fresh(half, 12);
    long got = pread(device, half, 16, at);
    say("half pread", got, moved(half, 12, at));
    fresh(half, 12);
    got = read(device, half, 16);
    say("half read", got, moved(half, 12, at));
    say("nowhere", syscall(SYS_pread64, device, 8L, 16L, at), 0);
    mprotect(b, PAGE, PROT_READ);
    say("read-only", pread(device, b, 16, at), 0);
    b = pages(PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    TRY("shared", b, 16, at, pread(device, b, 16, at));
    b = pages(PROT_READ | PROT_WRITE, MAP_SHARED, device, border - 4 * PAGE);
    TRY("mapped", b, 16, at, pread(device, b, 16, at));
    memcpy(b, memory, 16);
    struct iovec two[] = {{b + PAGE - 8, 8}, {b + PAGE, 8}};
    TRY("mapped readv", b + PAGE - 8, 16, at, preadv(device, two, 2, at));
    memcpy(b + PAGE - 8, memory + PAGE - 8, 16);
    b = pages(PROT_READ | PROT_WRITE, MAP_PRIVATE, device, border - 4 * PAGE);
    TRY("mapped private", b, 16, at, pread(device, b, 16, at));
    fflush(stdout);
    if (fork() == 0) {
        TRY("child", memory + 64, 16, at, pread(device, memory + 64, 16, at)); /* a copied page */
        fflush(stdout);
        _exit(0);
    }
    wait(NULL);
}

static void large(void)
{
    long size = 3 << 20, before = (2 << 20) + 8;
    uint8_t *b = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    TRY("large", b, size, border - 8, pread(device, b, (size_t)size, border - 8));
    TRY("large read", b, size, border - 8, read(device, b, (size_t)size));
    fresh(b, size);
    long got = pread(device, b, (size_t)size, border - before);
    say("large late", got, moved(b + (2 << 20), size - (2 << 20), border - 8));
    fresh(b, size);
    lseek(device, border - before, SEEK_SET);
    got = read(device, b, (size_t)size);
    say("large late read", got, moved(b + (2 << 20), size - (2 << 20), border - 8));
}

static void written(const char *when, const char *name, long result)
{
    uint8_t found[16];
    long count = 0, position = lseek(device, 0, SEEK_CUR) - border;
    char number[24];
    snprintf(number, sizeof number, "%ld", result);
    if (result < 0)
        snprintf(number, sizeof number, "%s", strerrorname_np(errno));
    if (pread(device, found, 16, border - 16) != 16)
        perror("pread");
    while (count < 8 && found[8 + count] == 0x77)
        count++;
    printf("%s%s: %s %ld +%ld\n", when, name, number, memcmp(found, memory + sizeof memory - 16, 8) ? -1 : count, position);
    if (pwrite(device, memory + sizeof memory - 16, 16, border - 16) != 16)
        perror("pwrite");
}

static void writes(const char *when)
{
    uint8_t b[16];
    off_t at = border - 8;
    struct iovec two[] = {{b, 8}, {b + 8, 8}}, three[] = {{b, 4}, {b + 4, 8}, {b + 12, 4}}, one[] = {{b, 16}};
    memset(b, 0x77, sizeof b);
#define WRITE(name, call) (lseek(device, at, SEEK_SET), written(when, name, call))
    WRITE("write", write(device, b, 16));
    WRITE("pwrite", pwrite(device, b, 16, at));
    WRITE("pwrite refused", pwrite(device, b, 8, border));
    WRITE("writev", writev(device, two, 2));
    WRITE("writev inside", writev(device, three, 3));
    WRITE("writev one", writev(device, one, 1));
    WRITE("pwritev", pwritev(device, two, 2, at));
    WRITE("pwritev2", pwritev2(device, three, 3, at, 0));
    WRITE("pwritev2 here", pwritev2(device, two, 2, -1, 0));
}

#ifdef __x86_64__
static long int80(long number, long b, long c, long d, long e, long f)
{
    long result;
    __asm__ volatile("int $0x80" : "=a"(result)
                     : "a"(number), "b"(b), "c"(c), "d"(d), "S"(e), "D"(f) : "memory", "r8", "r9", "r10", "r11");
    if ((int)result >= -4095 && (int)result < 0) {
        errno = -(int)result;
        return -1;
    }
    return result;
}

static void compat(void)
{
    const char *when = "";
    uint8_t *b = pages(PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    uint32_t *two = (uint32_t *)(b + PAGE), here = (uint32_t)(uintptr_t)b;
    off_t at = border - 8;
    long low = (long)(at & 0xffffffff), high = (long)(at >> 32);
    memcpy(two, (uint32_t[]){here, 4, here + 4, 8, here + 12, 4}, 24);
    if (int80(20, 0, 0, 0, 0, 0) == -1)
        return; /* no i386 here */
#define TRY32(name, ...) TRY("i386 " name, b, 16, at, int80(__VA_ARGS__))
    TRY32("read", 3, device, here, 16, 0, 0);
    TRY32("pread64", 180, device, here, 16, low, high);
    TRY32("readv", 145, device, (long)(uintptr_t)two, 3, 0, 0);
    TRY32("preadv", 333, device, (long)(uintptr_t)two, 3, low, high);
    memset(b, 0x77, 16);
    WRITE("i386 pwrite64", int80(181, device, here, 16, low, high));
    WRITE("i386 writev", int80(146, device, (long)(uintptr_t)two, 3, 0, 0));
    WRITE("i386 pwritev", int80(334, device, (long)(uintptr_t)two, 3, low, high));
}
#else
static void compat(void) {}
#endif

static void nothing(int number)
{
    (void)number;
}

/* Interrupted again and again, and beside others: every call moves the same bytes. */
static void *reader(void *wrong)
{
    uint8_t b[32];
    struct iovec two[] = {{b, 8}, {b + 8, 8}};
    for (int round = 0; round < ROUNDS; round++) {
        memset(b, UNTOUCHED, sizeof b);
        long got = pread(device, b, 16, border - 8);
        if (got != -1 || errno != EPERM || moved(b, sizeof b, border - 8) != 8)
            __atomic_fetch_add((int *)wrong, 1, __ATOMIC_RELAXED);
        memset(b, UNTOUCHED, sizeof b);
        got = preadv(device, two, 2, border - 8);
        if (got != 8 || moved(b, sizeof b, border - 8) != 8)
            __atomic_fetch_add((int *)wrong, 1, __ATOMIC_RELAXED);
    }
    return NULL;
}

static int crowd(int count)
{
    pthread_t threads[count];
    struct itimerval soon = {{0, 1000}, {0, 1000}}, never = {0};
    struct sigaction action = {.sa_handler = nothing};
    int wrong = 0;
    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &soon, NULL);
    for (int at = 0; at < count; at++)
        if (pthread_create(&threads[at], NULL, reader, &wrong))
            return 1;
    for (int at = 0; at < count; at++)
        pthread_join(threads[at], NULL);
    setitimer(ITIMER_REAL, &never, NULL);
    printf("wrong: %d\n", wrong);
    return wrong != 0;
}

int main(int count, char **words)
{
    uint8_t b[4 * PAGE];
    border = (off_t)strtoull(words[count - 1], NULL, 16);
    device = open("/dev/mem", O_RDWR);
    if (device < 0 || pread(device, memory, sizeof memory, border - (long)sizeof memory) != sizeof memory) {
        perror("/dev/mem");
        return 1;
    }
    if (count > 3)
        return crowd(atoi(words[2]));
    plain(b);
    vectors(b);
    writes("");
    compat();
    buffers();
    writes("mapped "); /* of a file that pages are cached of */
    large();
    prctl(PR_SET_DUMPABLE, 0); /* nobody may look at it any more */
    fresh(b, 16);
    long got = pread(device, b, 16, border - 8);
    printf("hidden: %s\n", got < 0 ? strerrorname_np(errno) : "?");
    return 0;
}
