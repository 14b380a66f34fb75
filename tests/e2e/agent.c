/* Does what it is told, one command a line on stdin, one answer a line on stdout:
 *
 *   open PATH FLAGS | close FD | map FD OFF LEN PROT FLAGS | unmap MAP | load MAP AT WIDTH | store MAP AT WIDTH VALUE
 *   bytes MAP AT LEN | pread FD OFF LEN | pwrite FD OFF HEX | send MAP AT LEN | fork | to CHILD COMMAND... | end
 *
 * Answers: `ok NUMBER`, `data HEX`, `err ERRNO`, or `fault SIGNO SI_CODE OFFSET` where OFFSET is si_addr counted from
 * the start of the mapping. A child has a copy of everything; it is spoken to with `to`. Numbers as strtoull reads them.
 */
#include "told.h"

#include <sys/mman.h>

enum { MAPS = 4096, SHOWN = 4096 };

static struct { char *at; size_t length; } maps[MAPS];
static int map_count;
static char *buffer;
static size_t capacity;

static unsigned long long number(char **rest)
{
    return strtoull(*rest, rest, 0);
}

static void word(char **rest, char *to, size_t size)
{
    while (**rest == ' ')
        ++*rest;
    size_t length = strcspn(*rest, " \n");
    snprintf(to, size, "%.*s", (int)length, *rest);
    *rest += length;
}

static char *room(size_t length)
{
    if (length > capacity) {
        buffer = realloc(buffer, capacity = length);
        if (!buffer)
            abort();
    }
    return buffer;
}

static void do_open(char *rest)
{
    char path[256];
    word(&rest, path, sizeof path);
    int fd = open(path, (int)number(&rest), 0600);
    fd < 0 ? refused() : ok(fd);
}

static void do_map(char *rest)
{
    int fd = (int)number(&rest);
    off_t offset = (off_t)number(&rest);
    size_t length = number(&rest);
    int prot = (int)number(&rest), flags = (int)number(&rest);
    void *at = mmap(NULL, length, prot, flags, fd, offset);
    if (at == MAP_FAILED) {
        refused();
        return;
    }
    maps[map_count].at = at;
    maps[map_count].length = length;
    ok(map_count++);
}

static void do_unmap(char *rest)
{
    int map = (int)number(&rest);
    munmap(maps[map].at, maps[map].length) ? refused() : ok(0);
}

/* load, store, bytes: what may end in a signal */
static void do_touch(char kind, char *rest)
{
    int map = (int)number(&rest);
    char *base = maps[map].at, *at = base + number(&rest);
    size_t width = number(&rest);
    if (sigsetjmp(back, 1)) {
        fprintf(out, "fault %d %d %lld\n", fault.si_signo, fault.si_code,
                (long long)((char *)fault.si_addr - base));
        return;
    }
    if (kind == 'l') {
        fprintf(out, "ok %#llx\n", (unsigned long long)load(at, (unsigned)width));
    } else if (kind == 's') {
        store(at, (unsigned)width, number(&rest));
        ok(0);
    } else {
        char *copy = room(width);
        for (size_t done = 0; done < width; done++)
            copy[done] = ((volatile char *)at)[done];
        data(copy, width);
    }
}

static void do_pread(char *rest)
{
    int fd = (int)number(&rest);
    off_t offset = (off_t)number(&rest);
    size_t length = number(&rest);
    ssize_t got = pread(fd, room(length + 1), length, offset);
    got < 0 ? refused() : data(buffer, (size_t)got);
}

static void do_pwrite(char *rest)
{
    int fd = (int)number(&rest);
    off_t offset = (off_t)number(&rest);
    static char hex[2 * SHOWN + 1];
    word(&rest, hex, sizeof hex);
    size_t length = strlen(hex) / 2;
    unsigned char *bytes = (unsigned char *)room(length + 1);
    for (size_t at = 0; at < length; at++)
        sscanf(hex + 2 * at, "%2hhx", bytes + at);
    ssize_t taken = pwrite(fd, bytes, length, offset);
    taken < 0 ? refused() : ok(taken);
}

/* write(2) from a mapping into a pipe */
static void do_send(char *rest)
{
    int map = (int)number(&rest), ends[2];
    char *at = maps[map].at + number(&rest);
    size_t length = number(&rest);
    if (pipe(ends))
        abort();
    ssize_t sent = write(ends[1], at, length);
    sent < 0 ? refused() : ok(sent);
    close(ends[0]);
    close(ends[1]);
}

static void do_to(char *rest)
{
    static char line[3 * SHOWN];
    int child = (int)number(&rest);
    fprintf(children[child].to, "%s", rest + 1);
    fflush(children[child].to);
    if (!fgets(line, sizeof line, children[child].from))
        snprintf(line, sizeof line, "dead\n");
    fputs(line, out);
}

static int obey(char *line)
{
    char name[16];
    word(&line, name, sizeof name);
    if (!strcmp(name, "open"))
        do_open(line);
    else if (!strcmp(name, "close"))
        close((int)number(&line)) ? refused() : ok(0);
    else if (!strcmp(name, "map"))
        do_map(line);
    else if (!strcmp(name, "unmap"))
        do_unmap(line);
    else if (!strcmp(name, "load") || !strcmp(name, "store") || !strcmp(name, "bytes"))
        do_touch(name[0], line);
    else if (!strcmp(name, "pread"))
        do_pread(line);
    else if (!strcmp(name, "pwrite"))
        do_pwrite(line);
    else if (!strcmp(name, "send"))
        do_send(line);
    else if (!strcmp(name, "fork"))
        do_fork();
    else if (!strcmp(name, "to"))
        do_to(line);
    else
        return 0;
    return 1;
}

int main(void)
{
    static char line[3 * SHOWN];
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
    in = stdin;
    out = stdout;
    sigaction(SIGBUS, &action, NULL);
    sigaction(SIGSEGV, &action, NULL);
    while (fgets(line, sizeof line, in) && obey(line))
        fflush(out);
    for (int child = 0; child < child_count; child++) {
        fclose(children[child].to);
        waitpid(children[child].pid, NULL, 0);
    }
    return 0;
}
