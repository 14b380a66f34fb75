/* A program without a C library, for both tables of x86: open, fstat, lseek and mmap of /dev/mem. */
#ifdef __i386__
enum { OPEN = 5, WRITE = 4, EXIT = 1, FSTAT = 197, MMAP = 192 };
enum { MODE = 16, NUMBER = 32, SHIFT = 12, LARGE = 0x8000 };
static long call(long number, long a, long b, long c, long d, long e, long f)
{
    long result;
    const long arguments[] = {a, f};
    (void)d; /* always MAP_SHARED where it matters */
    __asm__ volatile("push %%ebp\n\tpush %%ebx\n\tmov 4(%%ebx), %%ebp\n\tmov (%%ebx), %%ebx\n\t"
                     "int $0x80\n\tpop %%ebx\n\tpop %%ebp"
                     : "=a"(result)
                     : "0"(number), "b"(arguments), "c"(b), "d"(c), "S"(1), "D"(e)
                     : "memory");
    return result;
}
#else
enum { OPEN = 2, WRITE = 1, EXIT = 60, FSTAT = 5, MMAP = 9 };
enum { MODE = 24, NUMBER = 40, SHIFT = 0, LARGE = 0 };
static long call(long number, long a, long b, long c, long d, long e, long f)
{
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    long result;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "0"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}
#endif

static void say(const char *name, long value)
{
    char text[40];
    char *at = text + sizeof text;
    unsigned long left = value < 0 ? -value : value;

    *--at = '\n';
    do
        *--at = '0' + left % 10;
    while (left /= 10);
    if (value < 0)
        *--at = '-';
    *--at = ' ';
    call(WRITE, 1, (long)name, 5, 0, 0, 0);
    call(WRITE, 1, (long)at, text + sizeof text - at, 0, 0, 0);
}

void start(void)
{
    static union {
        char bytes[256];
        unsigned words[64];
    } room;
    long device = call(OPEN, (long)"/dev/mem", 2 | LARGE, 0, 0, 0, 0);

    say("fstat", call(FSTAT, device, (long)&room, 0, 0, 0, 0));
    say("mode ", room.words[MODE / 4]);
    say("rdev ", room.words[NUMBER / 4]);
#ifdef __i386__
    static long long position;
    struct {
        long fd, high, low;
        long long *at;
        long whence;
    } seek = {device, 0, 0, &position, 2};
    long result;
    __asm__ volatile("int $0x80"
                     : "=a"(result)
                     : "0"(140), "b"(seek.fd), "c"(seek.high), "d"(seek.low), "S"(seek.at), "D"(seek.whence)
                     : "memory");
    say("seek ", result);
#else
    say("seek ", call(8, device, 0, 2, 0, 0, 0));
#endif
    say("ram  ", call(MMAP, 0, 4096, 1, 1, device, 0x100000 >> SHIFT));
    long page = call(MMAP, 0, 4096, 1, 1, device, 0xf0000 >> SHIFT);
    say("rom  ", page < 0 && page > -4096 ? page : 0);
    call(EXIT, 0, 0, 0, 0, 0, 0);
}
