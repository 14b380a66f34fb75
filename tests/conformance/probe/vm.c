/* What the memory management does with a mapping. */
#include "probe.h"
#include <linux/futex.h>
#include <sched.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>

#define NAMED(text) form("%s-" text, prefix)

/* -- mlock, which on some kernels never returns: a clone that shares the memory does it, with a deadline */

struct lock_call {
    void *address;
    long answer;
};

static int lock_page(void *argument) {
    struct lock_call *call = argument;
    call->answer = mlock(call->address, PAGE) ? -errno : 0;
    return 0;
}

static int lock_in_time(void *address) {
    static char stack[1 << 16] __attribute__((aligned(16)));
    static struct lock_call call;
    const struct timespec pause = {0, 10000000};
    call = (struct lock_call){address, -ETIMEDOUT};
    pid_t child = clone(lock_page, stack + sizeof stack, CLONE_VM | SIGCHLD, &call);
    for (int i = 0; child > 0 && i < 100; i++) {
        if (waitpid(child, NULL, WNOHANG) == child) {
            child = 0;
            break;
        }
        nanosleep(&pause, NULL);
    }
    if (child > 0) {
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
    }
    errno = -call.answer;
    return call.answer ? -1 : 0;
}

/* -- mremap */

static int remapped(const char *name, void *to) {
    answer(name, "mremap", to == MAP_FAILED ? -1 : 0);
    return to != MAP_FAILED;
}

static void *place_for(size_t length) {
    return mmap(NULL, length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

static char *move(const char *prefix, char *map, size_t length, u64 phys) {
    void *place = place_for(length);
    char *to = mremap(map, length, length, MREMAP_MAYMOVE | MREMAP_FIXED, place);
    if (!remapped(NAMED("mremap-move-fixed"), to))
        return map;
    touch_read(NAMED("read-after-move"), to, 0, 4, phys, NULL);
    touch_read(NAMED("read-at-old-addr"), map, 0, 4, phys, NULL);
    smaps_record(NAMED("smaps-after-move"), to);
    return to;
}

static int move_first_page(const char *prefix, char *map, u64 phys) {
    void *place = place_for(PAGE);
    char *to = mremap(map, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, place);
    if (!remapped(NAMED("mremap-move-one-page-of-it"), to))
        return 0;
    touch_read(NAMED("read-moved-page"), to, 0, 4, phys, NULL);
    touch_read(NAMED("read-rest"), map, PAGE, 4, phys, NULL);
    munmap(to, PAGE);
    return 1;
}

static size_t shrink(const char *prefix, char *map, size_t length, u64 phys) {
    if (!remapped(NAMED("mremap-shrink"), mremap(map, length, length - PAGE, 0)))
        return length;
    length -= PAGE;
    touch_read(NAMED("read-after-shrink"), map, 0, 4, phys, NULL);
    touch_read(NAMED("read-in-shrunk-part"), map, length, 4, phys, NULL);
    return length;
}

/* On a fresh mapping: madvise and mprotect of a page split it, and mremap takes whole ones. */
void remap_records(const char *prefix, char *map, size_t length, u64 phys) {
    char *to = mremap(map, length, length + PAGE, MREMAP_MAYMOVE);
    if (remapped(NAMED("mremap-grow-maymove"), to)) {
        map = to;
        length += PAGE;
    }
    if (remapped(NAMED("mremap-grow-inplace"), mremap(map, length, length + PAGE, 0)))
        length += PAGE;
    to = mremap(map, 0, PAGE, MREMAP_MAYMOVE);
    if (remapped(NAMED("mremap-dup-oldlen0"), to)) {
        touch_read(NAMED("read-dup"), to, 0, 4, phys, NULL);
        munmap(to, PAGE);
    }
    to = mremap(map, length, length, MREMAP_MAYMOVE | MREMAP_DONTUNMAP);
    if (remapped(NAMED("mremap-dontunmap"), to)) {
        munmap(map, length);
        map = to;
    }
    map = move(prefix, map, length, phys);
    if (move_first_page(prefix, map, phys)) {
        map += PAGE;
        length -= PAGE;
        phys += PAGE;
    }
    length = shrink(prefix, map, length, phys);
    answer(NAMED("munmap"), "munmap", munmap(map, length));
}

void pagemap_record(const char *name, void *address) {
    u64 entry = 0;
    int fd = open("/proc/self/pagemap", O_RDONLY);
    ssize_t got = pread(fd, &entry, sizeof entry, (u64)address / PAGE * sizeof entry);
    begin(name, "pagemap");
    answered(got);
    hex("entry", entry);
    end();
    close(fd);
}

/* -- everything else */

static void sync_and_advice(const char *prefix, char *map, size_t length) {
    static const struct {
        int advice;
        const char *name;
    } all[] = {{MADV_NORMAL, "NORMAL"},       {MADV_RANDOM, "RANDOM"},
               {MADV_WILLNEED, "WILLNEED"},   {MADV_DONTNEED, "DONTNEED"},
               {MADV_FREE, "FREE"},           {MADV_REMOVE, "REMOVE"},
               {MADV_DONTDUMP, "DONTDUMP"},   {MADV_DODUMP, "DODUMP"},
               {MADV_HUGEPAGE, "HUGEPAGE"},   {MADV_MERGEABLE, "MERGEABLE"},
               {MADV_COLD, "COLD"},           {MADV_PAGEOUT, "PAGEOUT"},
               {22, "POPULATE_READ"},         {23, "POPULATE_WRITE"},
               {MADV_WIPEONFORK, "WIPEONFORK"}};
    answer(NAMED("msync-SYNC"), "msync", msync(map, length, MS_SYNC));
    answer(NAMED("msync-ASYNC"), "msync", msync(map, length, MS_ASYNC));
    answer(NAMED("msync-INVALIDATE"), "msync", msync(map, length, MS_SYNC | MS_INVALIDATE));
    static unsigned char resident[65536];
    size_t pages = length / PAGE;
    memset(resident, 0xee, 16);
    int status = pages <= sizeof resident ? mincore(map, length, resident) : -1;
    begin(NAMED("mincore"), "mincore");
    answered(status);
    if (!status)
        data_bytes(resident, pages > 8 ? 8 : pages);
    end();
    for (size_t i = 0; i < COUNT(all); i++)
        answer(form("%s-madvise-%s", prefix, all[i].name), "madvise", madvise(map, PAGE, all[i].advice));
    answer(NAMED("mlock"), "mlock", lock_in_time(map));
    answer(NAMED("munlock"), "munlock", munlock(map, PAGE));
}

static void protection(const char *prefix, char *map, u64 phys) {
    answer(NAMED("mprotect-R"), "mprotect", mprotect(map, PAGE, PROT_READ));
    touch_write(NAMED("write-after-mprotect-R"), map, 0x80, 4, 0, phys, NULL);
    answer(NAMED("mprotect-RW"), "mprotect", mprotect(map, PAGE, RW));
    touch_read(NAMED("read-after-mprotect-RW"), map, 0, 4, phys, NULL);
}

/* The kernel copies out of the mapping, and into it. */
static void user_copies(const char *prefix, char *map, int may_store) {
    unsigned char bytes[16];
    int ends[2], pair[2];
    (void)!pipe(ends);
    long done = write(ends[1], map, 16);
    begin(NAMED("write(pipe, map, 16)"), "write");
    answered(done);
    if (done > 0) {
        (void)!read(ends[0], bytes, done);
        data_bytes(bytes, done);
    }
    end();
    if (may_store) {
        (void)!write(ends[1], "\x78\x56\x34\x12", 4);
        answer(NAMED("read(pipe -> map+4, 4)"), "read", read(ends[0], map + 4, 4));
    }
    close(ends[0]);
    close(ends[1]);
    int file = open(form("%s/od", temporary), O_CREAT | O_RDWR | O_TRUNC, 0600);
    answer(NAMED("write(tmpfs, map, 4096)"), "write", write(file, map, PAGE));
    close(file);
    (void)!socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
    answer(NAMED("send(unix, map, 16)"), "send", send(pair[0], map, 16, MSG_DONTWAIT));
    close(pair[0]);
    close(pair[1]);
}

static void copy_record(const char *name, const char *op, long got, const void *bytes) {
    begin(name, op);
    answered(got);
    if (got > 0)
        data_bytes(bytes, got);
    end();
}

/* Another process does, or one that acts as if. */
static void remote_copies(const char *prefix, char *map, int may_store) {
    unsigned char bytes[64] = {0};
    struct iovec local = {bytes, 16}, remote = {map, 16};
    long got = process_vm_readv(getpid(), &local, 1, &remote, 1, 0);
    copy_record(NAMED("process_vm_readv-self"), "process_vm_readv", got, bytes);
    answer(NAMED("process_vm_writev-self"), "process_vm_writev",
           process_vm_writev(getpid(), &local, 1, &remote, 1, 0));
    int fd = open("/proc/self/mem", O_RDWR);
    got = pread(fd, bytes, 16, (off_t)map);
    copy_record(NAMED("pread(/proc/self/mem)"), "pread", got, bytes);
    got = pread(fd, bytes, 4, (off_t)map);
    copy_record(NAMED("pread(/proc/self/mem)-len4"), "pread", got, bytes);
    if (may_store) {
        u32 word = 0xcafef00d;
        volatile u32 back = 0;
        long put = pwrite(fd, &word, sizeof word, (off_t)map + 4);
        begin(NAMED("pwrite(/proc/self/mem, map+4)"), "pwrite");
        answered(put);
        if (!TRY(back = *(volatile u32 *)(map + 4)))
            hex("readback", back);
        end();
    }
    close(fd);
}

static void poke(const char *prefix, char *map, pid_t child) {
    volatile u64 back = 0;
    int status = ptrace(PTRACE_POKEDATA, child, map + 8, (void *)0x1122334455667788L);
    begin(NAMED("ptrace-POKEDATA+8"), "ptrace");
    answered(status);
    if (!TRY(back = *(volatile u64 *)(map + 8)))
        hex("readback", back);
    end();
}

static void trace_child(const char *prefix, char *map, int may_store) {
    fork_record(NAMED("fork"), NULL);
    fflush(NULL);
    pid_t child = fork();
    if (!child) {
        ptrace(PTRACE_TRACEME, 0, 0, 0);
        raise(SIGSTOP);
        _exit(0);
    }
    if (child < 0)
        return;
    waitpid(child, NULL, 0);
    errno = 0;
    long word = ptrace(PTRACE_PEEKDATA, child, map, 0);
    int error = errno;
    begin(NAMED("ptrace-PEEKDATA"), "ptrace");
    result(error ? -1 : 0, error);
    if (!error)
        data_bytes(&word, sizeof word);
    end();
    if (may_store)
        poke(prefix, map, child);
    ptrace(PTRACE_CONT, child, 0, 0);
    waitpid(child, NULL, 0);
}

/* Pages by reference: vmsplice takes them, a shared futex is named after one. */
static void references(const char *prefix, char *map) {
    int ends[2];
    struct iovec vector = {map, PAGE};
    (void)!pipe(ends);
    answer(NAMED("vmsplice"), "vmsplice", vmsplice(ends[1], &vector, 1, SPLICE_F_NONBLOCK));
    close(ends[0]);
    close(ends[1]);
    answer(NAMED("futex-WAKE-shared"), "futex", syscall(SYS_futex, map, FUTEX_WAKE, 1, 0, 0, 0));
    answer(NAMED("futex-WAKE-private"), "futex", syscall(SYS_futex, map, FUTEX_WAKE_PRIVATE, 1, 0, 0, 0));
}

void vm_records(const char *prefix, char *map, size_t length, u64 phys, int may_store) {
    sync_and_advice(prefix, map, length);
    protection(prefix, map, phys);
    user_copies(prefix, map, may_store);
    remote_copies(prefix, map, may_store);
    trace_child(prefix, map, may_store);
    references(prefix, map);
    smaps_record(NAMED("smaps"), map);
    answer(NAMED("munmap-first-page"), "munmap", munmap(map, PAGE));
    touch_read(NAMED("touch-unmapped"), map, 0, 4, phys, NULL);
    if (length > PAGE)
        touch_read(NAMED("touch-remaining"), map, PAGE, 4, phys, NULL);
    answer(NAMED("munmap-rest"), "munmap", munmap(map, length));
}
