/* System calls with their records. */
#include "probe.h"
#include <inttypes.h>

static unsigned char buffer[(4 << 20) + PAGE];

static const char *open_flags(int flags) {
    static const struct {
        int flag;
        const char *name;
    } names[] = {
        {O_CREAT, "|O_CREAT"},         {O_EXCL, "|O_EXCL"},     {O_TRUNC, "|O_TRUNC"},
        {O_APPEND, "|O_APPEND"},       {O_NONBLOCK, "|O_NONBLOCK"}, {O_DIRECT, "|O_DIRECT"},
        {O_DIRECTORY, "|O_DIRECTORY"}, {O_CLOEXEC, "|O_CLOEXEC"},   {O_PATH, "|O_PATH"},
        {O_NOATIME, "|O_NOATIME"},
    };
    static char found[160];
    int mode = flags & O_ACCMODE;
    strcpy(found, mode == O_RDONLY ? "O_RDONLY" : mode == O_WRONLY ? "O_WRONLY" : "O_RDWR");
    if ((flags & O_SYNC) == O_SYNC)
        strcat(found, "|O_SYNC");
    else if (flags & O_DSYNC)
        strcat(found, "|O_DSYNC");
    for (size_t i = 0; i < COUNT(names); i++)
        if (flags & names[i].flag)
            strcat(found, names[i].name);
    return found;
}

int open_record(const char *name, const char *path, int flags, const char *who) {
    begin(name, "open");
    text("path", path);
    text("flags", open_flags(flags));
    text("as", who);
    int fd = open(path, flags, 0600);
    answered(fd < 0 ? -1 : 0);
    note(fd < 0 ? "open failed" : "fd opened");
    end();
    return fd;
}

const char *prot_name(int prot) {
    const char *read = prot & PROT_READ ? "R" : "", *write = prot & PROT_WRITE ? "W" : "";
    return prot ? form("%s%s%s", read, write, prot & PROT_EXEC ? "X" : "") : "NONE";
}

const char *map_flags_name(int flags) {
    static const struct {
        int flag;
        const char *name;
    } names[] = {{MAP_FIXED, "|FIXED"},     {MAP_POPULATE, "|POPULATE"}, {MAP_LOCKED, "|LOCKED"},
                 {MAP_HUGETLB, "|HUGETLB"}, {MAP_SYNC, "|SYNC"},         {MAP_32BIT, "|32BIT"}};
    static char found[96];
    int both = (flags & MAP_SHARED_VALIDATE) == MAP_SHARED_VALIDATE;
    strcpy(found, both                  ? "SHARED_VALIDATE"
                  : flags & MAP_SHARED  ? "SHARED"
                  : flags & MAP_PRIVATE ? "PRIVATE"
                                        : "");
    for (size_t i = 0; i < COUNT(names); i++)
        if (flags & names[i].flag)
            strcat(found, names[i].name);
    return found;
}

/* The first line of the mapping without its addresses, and a few that say how it is mapped. */
void smaps_of(void *address, char *found, size_t size) {
    static const char *const wanted[] = {"Rss:", "VmFlags:", "Size:", "Private_Dirty:"};
    const char *first = form("%lx-", (unsigned long)address);
    char *all = slurp("/proc/self/smaps", NULL);
    int inside = 0;
    found[0] = 0;
    for (char *line = all ? strtok(all, "\n") : NULL; line; line = strtok(NULL, "\n")) {
        if (!inside && !strncmp(line, first, strlen(first))) {
            char *space = strchr(line, ' ');
            snprintf(found, size, "%s", space ? space + 1 : line);
            inside = 1;
        }
        for (size_t i = 0; inside && i < COUNT(wanted); i++) {
            if (strncmp(line, wanted[i], strlen(wanted[i])))
                continue;
            strncat(found, " ; ", size - strlen(found) - 1);
            strncat(found, line, size - strlen(found) - 1);
        }
        if (inside && !strncmp(line, "VmFlags:", 8))
            break;
    }
    free(all);
}

void smaps_record(const char *name, void *address) {
    char found[1024];
    smaps_of(address, found, sizeof found);
    begin(name, "read");
    result(0, 0);
    data_text(found);
    end();
}

void memtype_of(u64 address, char *found, size_t size) {
    char *all = slurp("/sys/kernel/debug/x86/pat_memtype_list", NULL);
    found[0] = 0;
    for (char *line = all ? strtok(all, "\n") : NULL; line; line = strtok(NULL, "\n")) {
        u64 start, stop;
        char *range = strstr(line, "0x");
        if (!range || sscanf(range, "0x%" SCNx64 "-0x%" SCNx64, &start, &stop) != 2)
            continue;
        if (start > address || address >= stop)
            continue;
        strncat(found, line, size - strlen(found) - 1);
        strncat(found, "; ", size - strlen(found) - 1);
    }
    free(all);
}

static void memtype_field(u64 address) {
    char found[512];
    memtype_of(address, found, sizeof found);
    if (found[0])
        text("memtype", found);
}

static void *begin_map(const char *name, const char *op, int fd, const char *what, u64 offset, size_t length, int prot,
                       int flags) {
    begin(name, op);
    text("fd", what);
    hex("off", offset);
    hex("len", length);
    text("prot", prot_name(prot));
    text("flags", map_flags_name(flags));
    return (void *)syscall(SYS_mmap, 0, length, prot, flags, fd, offset);
}

void *map_record(const char *name, int fd, const char *what, u64 offset, size_t length, int prot, int flags) {
    if (fd < 0)
        return MAP_FAILED;
    void *map = begin_map(name, "mmap", fd, what, offset, length, prot, flags);
    answered(map == MAP_FAILED ? -1 : 0);
    if (map != MAP_FAILED) {
        char found[1024];
        smaps_of(map, found, sizeof found);
        if (found[0])
            text("smaps", found);
        memtype_field(offset);
    }
    end();
    return map;
}

/* Stores the inverse of a word, and puts the word back. */
static void store_and_restore(char *map, u32 word, int shared, u64 offset) {
    volatile u32 *place = (volatile u32 *)map;
    volatile u32 back = 0;
    if (TRY({
            *place = ~word;
            back = *place;
        })) {
        signal_field(map, offset);
        return;
    }
    key("write_u32_at0");
    raw("\"0x%08x\"", ~word);
    key("readback");
    raw("\"0x%08x\"", back);
    if (shared)
        TRY(*place = word);
}

static void touch_map(char *map, u64 offset, size_t length, int shared, int store) {
    volatile u32 words[4] = {0}, last = 0;
    int signo = TRY(for (int i = 0; i < 4; i++) words[i] = ((volatile u32 *)map)[i]);
    if (signo) {
        signal_field(map, offset);
        return;
    }
    u32 copy[4] = {words[0], words[1], words[2], words[3]};
    data_bytes(copy, sizeof copy);
    if (length >= 4) {
        signo = TRY(last = *(volatile u32 *)(map + ((length - 4) & ~3UL)));
        if (signo) {
            signal_field(map, offset);
        } else {
            key("last_u32");
            raw("\"0x%08x\"", last);
        }
    }
    if (!signo && store)
        store_and_restore(map, words[0], shared, offset);
}

int map_and_touch(const char *name, int fd, const char *what, u64 offset, size_t length, int prot, int flags,
                  int store) {
    char path[512];
    if (fd < 0)
        return EBADF;
    iomem_path(offset, path, sizeof path);
    char *map = begin_map(name, "mmap+touch", fd, what, offset, length, prot, flags);
    int error = map == MAP_FAILED ? errno : 0;
    if (store)
        integer("write", 1);
    text("iomem", path);
    result(error ? -1 : 0, error);
    if (!error) {
        memtype_field(offset);
        if (prot & PROT_READ)
            touch_map(map, offset, length, flags & MAP_SHARED, store && prot & PROT_WRITE);
        munmap(map, length);
    }
    end();
    return error;
}

int changed_bytes(const unsigned char *bytes, size_t size) {
    while (size > 0 && bytes[size - 1] == FILL)
        size--;
    return size;
}

static void begin_transfer(const char *name, const char *op, const char *what, u64 offset, size_t length) {
    char path[512];
    iomem_path(offset, path, sizeof path);
    begin(name, op);
    text("fd", what);
    hex("off", offset);
    hex("len", length);
    text("iomem", path);
}

long read_at(const char *name, int fd, const char *what, u64 offset, size_t length) {
    if (fd < 0)
        return -EBADF;
    size_t room = length > (4 << 20) ? (4 << 20) : length;
    begin_transfer(name, "pread", what, offset, length);
    memset(buffer, FILL, room + 64);
    long got = syscall(SYS_pread64, fd, buffer, length, offset);
    int error = got < 0 ? errno : 0;
    result(got, error);
    if (got > 0)
        data_bytes(buffer, got > 32 ? 32 : got);
    integer("buf_modified_bytes", changed_bytes(buffer, room));
    end();
    return got < 0 ? -error : got;
}

static void bytes_field(const char *field, const unsigned char *bytes, ssize_t size) {
    if (size <= 0)
        return;
    key(field);
    raw("\"");
    for (int i = 0; i < (size > 16 ? 16 : size); i++)
        raw("%02x", bytes[i]);
    raw("\"");
}

long write_at(const char *name, int fd, const char *what, u64 offset, const void *bytes, size_t length) {
    unsigned char before[64], after[64];
    if (fd < 0)
        return -EBADF;
    size_t room = length > sizeof before ? sizeof before : length;
    begin_transfer(name, "pwrite", what, offset, length);
    ssize_t old = pread(fd, before, room, offset);
    long done = syscall(SYS_pwrite64, fd, bytes, length, offset);
    int error = done < 0 ? errno : 0;
    ssize_t new = pread(fd, after, room, offset);
    result(done, error);
    data_bytes(bytes, room);
    bytes_field("before", before, old);
    bytes_field("after", after, new);
    end();
    if (old == (ssize_t)room && done > 0)
        (void)!pwrite(fd, before, room, offset);
    return done < 0 ? -error : done;
}

void fork_record(const char *name, const char *said) {
    fflush(NULL);
    begin(name, "fork");
    pid_t child = fork();
    if (!child)
        _exit(7);
    answered(child < 0 ? -1 : 0);
    if (child > 0)
        waitpid(child, NULL, 0);
    note(said);
    end();
}

void stat_record(const char *name, int fd) {
    struct stat found;
    int status = fstat(fd, &found);
    begin(name, "fstat");
    answered(status);
    if (!status) {
        key("st");
        raw("{\"mode\":\"%o\",\"size\":%lld,\"ino\":%llu,\"nlink\":%llu}", found.st_mode, (long long)found.st_size,
            (unsigned long long)found.st_ino, (unsigned long long)found.st_nlink);
    }
    end();
}

void unmap(void *address, size_t length) {
    if (address != MAP_FAILED)
        munmap(address, length);
}
