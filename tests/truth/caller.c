/* Does system calls, loads and stores as it is told: one command a line on stdin, one answer a line on stdout.
 *
 *   call NAME ARG...        a system call; ARG is a number, or `@N`: the address of byte N of the room
 *   put AT HEX | fill BYTE AT LEN | show AT LEN | room      the room, 8 MiB that calls read from and write to
 *   load ADDRESS WIDTH | store ADDRESS WIDTH VALUE | words ADDRESS COUNT
 *   pages ADDRESS COUNT STEP                               a load from every STEP-th page, and from the last one
 *   fork | to CHILD COMMAND... | default (no handler any more) | end
 *
 * Answers: `ok NUMBER`, `data HEX`, `err ERRNO`, `fault SIGNO SI_CODE SI_ADDR`, `dead SIGNO`. Numbers as strtoull reads
 * them. A child has a copy of everything; after `dead` it is gone.
 */
#include "../e2e/told.h"

#include <sys/syscall.h>

enum { ROOM = 8 << 20, LINE = 1 << 16 };

static const struct { const char *name; long number; } calls[] = {
    {"openat", SYS_openat}, {"close", SYS_close}, {"read", SYS_read}, {"write", SYS_write}, {"pread64", SYS_pread64},
    {"pwrite64", SYS_pwrite64}, {"preadv", SYS_preadv}, {"pwritev", SYS_pwritev}, {"lseek", SYS_lseek},
    {"mmap", SYS_mmap}, {"munmap", SYS_munmap}, {"mremap", SYS_mremap}, {"mprotect", SYS_mprotect},
    {"msync", SYS_msync}, {"fstat", SYS_fstat}, {"newfstatat", SYS_newfstatat}, {"faccessat", SYS_faccessat},
    {"readlinkat", SYS_readlinkat}, {"getdents64", SYS_getdents64}, {"ioctl", SYS_ioctl}, {"fsync", SYS_fsync},
    {"ftruncate", SYS_ftruncate}, {"truncate", SYS_truncate}, {"mkdirat", SYS_mkdirat}, {"unlinkat", SYS_unlinkat},
    {"renameat2", SYS_renameat2}, {"fchmodat", SYS_fchmodat}, {"capget", SYS_capget}, {"capset", SYS_capset},
    {"pipe2", SYS_pipe2}, {"memfd_create", SYS_memfd_create}, {"socketpair", SYS_socketpair},
    {"sendto", SYS_sendto}, {"fcntl", SYS_fcntl},
};
static char *room;
static void handle(void (*handler)(int, siginfo_t *, void *))
{
    struct sigaction action = {.sa_flags = SA_SIGINFO};
    if (handler)
        action.sa_sigaction = handler;
    sigaction(SIGBUS, &action, NULL);
    sigaction(SIGSEGV, &action, NULL);
}

static char *word(char **rest)
{
    char *start = *rest + strspn(*rest, " ");
    size_t length = strcspn(start, " \n");
    *rest = start + length + (start[length] != 0);
    start[length] = 0;
    return start;
}

static uint64_t number(char **rest) { return strtoull(word(rest), NULL, 0); }

static long argument(char **rest)
{
    char *text = word(rest);
    return *text == '@' ? (long)(room + strtoull(text + 1, NULL, 0)) : (long)strtoull(text, NULL, 0);
}

static void do_call(char *rest)
{
    char *name = word(&rest);
    long values[6], result = -1;
    for (int n = 0; n < 6; n++)
        values[n] = argument(&rest);
    errno = ENOSYS;
    for (size_t n = 0; n < sizeof calls / sizeof *calls; n++)
        if (!strcmp(calls[n].name, name))
            result = syscall(calls[n].number, values[0], values[1], values[2], values[3], values[4], values[5]);
    if (result == -1)
        refused();
    else
        ok(result);
}

static void do_put(char *rest)
{
    char *at = room + number(&rest), *hex = word(&rest);
    size_t length = strlen(hex) / 2;
    for (size_t n = 0; n < length; n++)
        sscanf(hex + 2 * n, "%2hhx", (unsigned char *)at + n);
    ok((long long)length);
}

/* load, store, words, pages: what may end in a signal */
static void do_touch(char kind, char *rest)
{
    volatile char *at = (volatile char *)number(&rest);
    unsigned width = (unsigned)number(&rest);
    if (sigsetjmp(back, 1)) {
        fprintf(out, "fault %d %d %#llx\n", fault.si_signo, fault.si_code, (unsigned long long)(uintptr_t)fault.si_addr);
        return;
    }
    if (kind == 'l') {
        fprintf(out, "ok %#llx\n", (unsigned long long)load(at, width));
    } else if (kind == 's') {
        store(at, width, number(&rest));
        ok(0);
    } else if (kind == 'p') {
        for (size_t page = 0, step = number(&rest); page < width; page += step)
            load(at + 4096 * page, 1);
        load(at + 4096 * (size_t)(width - 1), 1);
        ok(0);
    } else {
        static uint32_t values[1024];
        for (unsigned n = 0; n < width; n++)
            values[n] = ((volatile uint32_t *)at)[n];
        data(values, 4 * width);
    }
}

static int finish(int child)
{
    int status = 0;
    fclose(children[child].to);
    fclose(children[child].from);
    waitpid(children[child].pid, &status, 0);
    children[child].pid = 0;
    return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

static void do_to(char *rest)
{
    static char line[LINE];
    int child = (int)number(&rest);
    fprintf(children[child].to, "%s", rest);
    fflush(children[child].to);
    if (fgets(line, sizeof line, children[child].from))
        fputs(line, out);
    else
        fprintf(out, "dead %d\n", finish(child));
}

static int obey(char *line)
{
    char *name = word(&line);
    if (!strcmp(name, "call"))
        do_call(line);
    else if (!strcmp(name, "put"))
        do_put(line);
    else if (!strcmp(name, "fill")) {
        int byte = (int)number(&line);
        char *at = room + number(&line);
        memset(at, byte, number(&line));
        ok(0);
    } else if (!strcmp(name, "show")) {
        char *at = room + number(&line);
        data(at, number(&line));
    } else if (!strcmp(name, "load") || !strcmp(name, "store") || !strcmp(name, "words") ||
             !strcmp(name, "pages"))
        do_touch(name[0], line);
    else if (!strcmp(name, "fork"))
        do_fork();
    else if (!strcmp(name, "to"))
        do_to(line);
    else if (!strcmp(name, "room"))
        ok((long long)(uintptr_t)room);
    else if (!strcmp(name, "default"))
        handle(NULL), ok(0);
    else
        return 0;
    return 1;
}

int main(void)
{
    static char line[LINE];
    room = calloc(1, ROOM);
    in = stdin;
    out = stdout;
    if (!room)
        return 1;
    handle(on_fault);
    while (fgets(line, sizeof line, in) && obey(line))
        fflush(out);
    for (int child = 0; child < child_count; child++)
        if (children[child].pid)
            finish(child);
    return 0;
}
