/* Phases fd, lowram and mmap-args: one descriptor of /dev/mem and what it can do. */
#include "probe.h"
#include <elf.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>

static unsigned char bytes[8192];

static void devmem_fstat(int fd) {
    struct stat found;
    int status = fstat(fd, &found);
    begin("fstat-devmem", "fstat");
    answered(status);
    key("st");
    raw("{\"mode\":\"%o\",\"ischr\":%d,\"rdev\":\"%u:%u\",", found.st_mode, S_ISCHR(found.st_mode),
        major(found.st_rdev), minor(found.st_rdev));
    raw("\"size\":%lld,\"blocks\":%lld,\"blksize\":%ld}", (long long)found.st_size, (long long)found.st_blocks,
        (long)found.st_blksize);
    end();
}

static void seek_record(int fd, const char *name, off_t offset, int whence) {
    begin(form("lseek-%s", name), "lseek");
    hex("offset", offset);
    integer("whence", whence);
    errno = 0;
    off_t at = lseek(fd, offset, whence);
    /* Positions of the upper half are answers, not errors. */
    int error = at < 0 && at >= -4095 ? errno : 0;
    result(at, error);
    hex("result_hex", at);
    hex("pos_after", lseek(fd, 0, SEEK_CUR));
    end();
}

static void read_record(const char *name, int fd, size_t length) {
    begin(name, "read");
    integer("len", length);
    errno = 0;
    answered(read(fd, bytes, length));
    end();
}

static void seeks(int fd) {
    static const struct {
        const char *name;
        off_t offset;
        int whence;
    } all[] = {
        {"set0", 0, SEEK_SET},
        {"set4096", 4096, SEEK_SET},
        {"cur+16", 16, SEEK_CUR},
        {"cur-4112-to-0", -4112, SEEK_CUR},
        {"cur-1-below-0", -1, SEEK_CUR},
        {"end0", 0, SEEK_END},
        {"set-hi", INT64_MAX, SEEK_SET},
        {"cur+1-past-max", 1, SEEK_CUR},
        {"set-min64", INT64_MIN, SEEK_SET},
        {"set-neg1", -1, SEEK_SET},
        {"set-neg4095", -4095, SEEK_SET},
        {"set-neg4096", -4096, SEEK_SET},
        {"set-neg0x100000", -0x100000, SEEK_SET},
        {"set-2^52", 1LL << 52, SEEK_SET},
        {"data", 0, SEEK_DATA},
        {"hole", 0, SEEK_HOLE},
        {"whence99", 0, 99},
    };
    for (size_t i = 0; i < COUNT(all); i++) {
        seek_record(fd, all[i].name, all[i].offset, all[i].whence);
        if (!strncmp(all[i].name, "set-", 4) || !strcmp(all[i].name, "cur+1-past-max"))
            read_record(form("read16-after-lseek-%s", all[i].name), fd, 16);
    }
}

static void reads(int fd) {
    lseek(fd, 0xf0000, SEEK_SET);
    long got = read(fd, bytes, 10);
    begin("read-advances-pos", "read");
    answered(got);
    hex("pos_after", lseek(fd, 0, SEEK_CUR));
    end();
    lseek(fd, 0xfff00, SEEK_SET);
    memset(bytes, FILL, sizeof bytes);
    begin("failed-cross-read-pos", "read");
    hex("off", 0xfff00);
    integer("len", 0x200);
    answered(read(fd, bytes, 0x200));
    hex("pos_after", lseek(fd, 0, SEEK_CUR));
    integer("buf_modified_bytes", changed_bytes(bytes, sizeof bytes));
    note("0xfff00..0x100100 crosses from ROM (allowed) to System RAM (forbidden)");
    end();
}

static void odd_buffers(int fd) {
    begin("pread-neg", "pread");
    hex("off", -16);
    answered(pread(fd, bytes, 16, -16));
    end();
    begin("pread-badptr", "pread");
    hex("off", 0xf0000);
    answered(syscall(SYS_pread64, fd, (void *)8, 16, 0xf0000L));
    end();
    answer("pread-badptr-len0", "pread", syscall(SYS_pread64, fd, (void *)8, 0, 0xf0000L));
    char *pages = mmap(NULL, 2 * PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    munmap(pages + PAGE, PAGE);
    begin("pread-buf-partially-unmapped", "pread");
    answered(pread(fd, pages + PAGE - 32, 64, 0xf0000));
    note("64 bytes to a buffer of which the last 32 are unmapped");
    end();
    munmap(pages, PAGE);
    struct iovec vector[2] = {{bytes, 8}, {bytes + 100, 8}};
    long got = preadv(fd, vector, 2, 0xf0000);
    begin("preadv-2x8", "preadv");
    answered(got);
    if (got > 0)
        data_bytes(bytes, 8);
    end();
    lseek(fd, 0xf0000, SEEK_SET);
    answer("readv-2x8", "readv", readv(fd, vector, 2));
}

static void other_calls(int fd, int file) {
    off_t from = 0xf0000;
    answer("sendfile-from-devmem", "sendfile", sendfile(file, fd, &from, 16));
    loff_t in = 0xf0000, out = 0;
    answer("copy_file_range-from-devmem", "copy_file_range", copy_file_range(fd, &in, file, &out, 16, 0));
    int ends[2], waiting = 0;
    (void)!pipe(ends);
    in = 0xf0000;
    answer("splice-from-devmem", "splice", splice(fd, &in, ends[1], NULL, 16, 0));
    close(ends[0]);
    close(ends[1]);
    answer("ioctl-FIONREAD", "ioctl", ioctl(fd, FIONREAD, &waiting));
    answer("fsync", "fsync", fsync(fd));
    answer("ftruncate", "ftruncate", ftruncate(fd, 0));
    answer("fallocate", "fallocate", fallocate(fd, 0, 0, PAGE));
    struct pollfd wanted = {fd, POLLIN | POLLOUT, 0};
    int status = poll(&wanted, 1, 0);
    begin("poll", "poll");
    answered(status);
    hex("revents", wanted.revents);
    end();
    struct flock lock = {F_WRLCK, SEEK_SET, 0, 10, 0};
    answer("flock-F_SETLK", "fcntl", fcntl(fd, F_SETLK, &lock));
    int error = posix_fadvise(fd, 0, PAGE, POSIX_FADV_WILLNEED);
    begin("posix_fadvise", "fadvise");
    result(error ? -1 : 0, error);
    end();
}

static void open_modes(void) {
    static const char read_only[] = DEVMEM " O_RDONLY", write_only[] = DEVMEM " O_WRONLY";
    int fd = open(DEVMEM, O_RDONLY);
    answer("pwrite-on-O_RDONLY", "pwrite", pwrite(fd, bytes, 1, 0xf0000));
    map_and_touch("mmap-RW-shared-on-O_RDONLY", fd, read_only, 0xf0000, PAGE, RW, MAP_SHARED, 0);
    map_and_touch("mmap-RW-private-on-O_RDONLY", fd, read_only, 0xf0000, PAGE, RW, MAP_PRIVATE, 1);
    char *map = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0xf0000);
    if (map != MAP_FAILED)
        answer("mprotect-W-on-O_RDONLY-shared", "mprotect", mprotect(map, PAGE, RW));
    unmap(map, PAGE);
    close(fd);
    fd = open(DEVMEM, O_WRONLY);
    answer("pread-on-O_WRONLY", "pread", pread(fd, bytes, 1, 0xf0000));
    map_and_touch("mmap-R-on-O_WRONLY", fd, write_only, 0xf0000, PAGE, PROT_READ, MAP_SHARED, 0);
    map_and_touch("mmap-W-on-O_WRONLY", fd, write_only, 0xf0000, PAGE, PROT_WRITE, MAP_SHARED, 0);
    close(fd);
    fd = open(DEVMEM, O_PATH);
    answer("pread-on-O_PATH", "pread", pread(fd, bytes, 1, 0xf0000));
    close(fd);
}

void phase_fd(void) {
    phase = "fd";
    int fd = open(DEVMEM, O_RDWR);
    if (fd < 0)
        return;
    devmem_fstat(fd);
    seeks(fd);
    reads(fd);
    odd_buffers(fd);
    int file = open(form("%s/o", temporary), O_CREAT | O_RDWR | O_TRUNC, 0600);
    other_calls(fd, file);
    open_modes();
    close(file);
    close(fd);
}

/* -- lowram: the System RAM below 1 MiB, which read(2) shows as zeros and mmap as it is */

static int is_zero(const unsigned char *page) {
    for (size_t i = 0; i < PAGE; i++)
        if (page[i])
            return 0;
    return 1;
}

static void nonzero_pages(const unsigned char *map, u64 start, u64 size) {
    char list[2048] = "";
    int found = 0;
    for (u64 at = 0; at < size; at += PAGE) {
        if (is_zero(map + at))
            continue;
        found++;
        if (strlen(list) < 1900)
            strcat(list, form("%llx ", (unsigned long long)(start + at)));
    }
    begin("lowram-nonzero-pages-via-mmap", "scan");
    result(found, 0);
    data_text(list);
    end();
}

static void both_views(int fd, const unsigned char *map, u64 start, u64 size) {
    int shown = 0;
    for (u64 page = 0; page < size && shown < 4; page += PAGE) {
        u64 at = page;
        while (at < page + PAGE && !map[at])
            at++;
        if (at == page + PAGE)
            continue;
        shown++;
        at &= ~15ULL;
        begin("lowram-nonzero-page mmap-view", "touch_read");
        hex("phys", start + at);
        result(0, 0);
        data_bytes(map + at, 16);
        end();
        read_at("lowram-nonzero-page pread-view", fd, DEVMEM, start + at, 16);
    }
}

static void kcore_view(u64 address) {
    int fd = open(kcore_path(), O_RDONLY);
    Elf64_Ehdr header;
    Elf64_Phdr segment;
    if (fd < 0)
        return;
    (void)!pread(fd, &header, sizeof header, 0);
    for (int i = 0; i < header.e_phnum; i++) {
        unsigned char data[16];
        (void)!pread(fd, &segment, sizeof segment, header.e_phoff + i * sizeof segment);
        u64 start = segment.p_paddr;
        if (segment.p_type != PT_LOAD || start == (u64)-1 || address < start || address >= start + segment.p_memsz)
            continue;
        ssize_t got = pread(fd, data, sizeof data, segment.p_offset + (address - start));
        begin("lowram-kcore-view", "pread");
        hex("phys", address);
        answered(got);
        if (got > 0)
            data_bytes(data, got);
        end();
        break;
    }
    close(fd);
}

static struct resource *low_system_ram(void) {
    for (int i = 0; i < resource_count; i++)
        if (!strcmp(resources[i].name, "System RAM") && resources[i].start < 0x100000)
            return &resources[i];
    return NULL;
}

void phase_lowram(void) {
    const u64 place = 0x8000;
    phase = "lowram";
    load_iomem();
    int fd = open(DEVMEM, O_RDWR);
    struct resource *ram = low_system_ram();
    if (fd < 0 || !ram)
        return;
    u64 start = (ram->start + PAGE - 1) & ~(PAGE - 1), size = ((ram->end + 1) & ~(PAGE - 1)) - start;
    unsigned char *map = mmap(NULL, size, RW, MAP_SHARED, fd, start), pattern[8];
    int error = map == MAP_FAILED ? errno : 0;
    begin("lowram-map-all", "mmap");
    hex("off", start);
    hex("len", size);
    result(error ? -1 : 0, error);
    end();
    if (error)
        return;
    nonzero_pages(map, start, size);
    both_views(fd, map, start, size);
    touch_write("lowram-mmap-write 0x8000", map, place - start, 8, 0x1122334455667788ULL, start,
                "page of kernel-reserved low RAM");
    map_and_touch("lowram-second-mapping-sees-write", fd, DEVMEM, place, PAGE, PROT_READ, MAP_SHARED, 0);
    read_at("lowram-pread-after-mmap-write", fd, DEVMEM, place, 16);
    memset(pattern, 0x5a, sizeof pattern);
    long put = pwrite(fd, pattern, sizeof pattern, place);
    begin("lowram-pwrite-then-mmap-view", "pwrite");
    answered(put);
    data_bytes(map + (place - start), 8);
    note("data = mmap view after pwrite of 5a*8: write claims success but is dropped");
    end();
    kcore_view(place);
    touch_write("lowram-restore", map, place - start, 8, 0, start, NULL);
    munmap(map, size);
    close(fd);
}

/* -- mmap-args */

static const struct {
    const char *name;
    u64 offset;
    size_t length;
    int prot, flags;
} maps[] = {
    {"unaligned-offset-1", 0xf0001, 4096, PROT_READ, MAP_SHARED},
    {"unaligned-offset-0x800", 0xf0800, 4096, PROT_READ, MAP_SHARED},
    {"len0", 0xf0000, 0, PROT_READ, MAP_SHARED},
    {"len1", 0xf0000, 1, PROT_READ, MAP_SHARED},
    {"len-unaligned-5000", 0xf0000, 5000, PROT_READ, MAP_SHARED},
    {"prot-none", 0xf0000, 4096, PROT_NONE, MAP_SHARED},
    {"prot-exec", 0xf0000, 4096, PROT_READ | PROT_EXEC, MAP_SHARED},
    {"prot-write-only", 0, 4096, PROT_WRITE, MAP_SHARED},
    {"neither-shared-nor-private", 0xf0000, 4096, PROT_READ, 0},
    {"shared_validate", 0xf0000, 4096, PROT_READ, MAP_SHARED_VALIDATE},
    {"shared_validate+sync", 0xf0000, 4096, PROT_READ, MAP_SHARED_VALIDATE | MAP_SYNC},
    {"populate", 0xf0000, 4096, PROT_READ, MAP_SHARED | MAP_POPULATE},
    {"locked", 0xf0000, 4096, PROT_READ, MAP_SHARED | MAP_LOCKED},
    {"populate-private-rw", 0, 8192, RW, MAP_PRIVATE | MAP_POPULATE},
    {"hugetlb", 0, 2 << 20, PROT_READ, MAP_SHARED | MAP_HUGETLB},
    {"32bit", 0xf0000, 4096, PROT_READ, MAP_SHARED | MAP_32BIT},
    {"off+len-overflow-2^64", -4096ULL, 8192, PROT_READ, MAP_SHARED},
    {"off-2^64-4096-len4096", -4096ULL, 4096, PROT_READ, MAP_SHARED},
    {"off-2^63", 1ULL << 63, 4096, PROT_READ, MAP_SHARED},
    {"off-2^52", 1ULL << 52, 4096, PROT_READ, MAP_SHARED},
    {"off-2^52-4096-len8192", (1ULL << 52) - 4096, 8192, PROT_READ, MAP_SHARED},
    {"off-2^40-4096", (1ULL << 40) - 4096, 4096, PROT_READ, MAP_SHARED},
    {"off-2^40", 1ULL << 40, 4096, PROT_READ, MAP_SHARED},
    {"len-huge-2^46", 0, 1ULL << 46, PROT_READ, MAP_SHARED},
    {"len-huge-2^48", 0, 1ULL << 48, PROT_READ, MAP_SHARED},
    {"len-2^64-1", 0, ~0ULL, PROT_READ, MAP_SHARED},
    {"0-to-1M-exact", 0, 0x100000, PROT_READ, MAP_SHARED},
    {"0-to-1M+4k", 0, 0x101000, PROT_READ, MAP_SHARED},
    {"4G-len-of-pci-hole", 0xc0000000, 0x3ec00000, PROT_READ, MAP_SHARED},
};

static void aliases(int fd, int sync, u64 bar) {
    static const char plain[] = "O_RDWR", synced[] = "O_RDWR|O_SYNC";
    void *one = map_record("alias-first-nosync", fd, plain, bar, PAGE, RW, MAP_SHARED);
    void *two = map_record("alias-second-sync", sync, synced, bar, PAGE, RW, MAP_SHARED);
    if (one != MAP_FAILED && two != MAP_FAILED) {
        touch_write("alias-write-1", one, 0x40, 4, 0x11223344, bar, NULL);
        touch_read("alias-read-2", two, 0x40, 4, bar, "second alias sees first alias write?");
    }
    unmap(one, PAGE);
    unmap(two, PAGE);
    two = map_record("alias-rev-first-sync", sync, synced, bar, PAGE, RW, MAP_SHARED);
    one = map_record("alias-rev-second-nosync", fd, plain, bar, PAGE, RW, MAP_SHARED);
    unmap(one, PAGE);
    unmap(two, PAGE);
}

static void sysfs_aliases(const struct pci_device *device, int fd, int sync, u64 bar) {
    static const char plain[] = "O_RDWR", synced[] = "O_RDWR|O_SYNC", combining[] = "resource2_wc";
    int wc = open(sysfs_of(device, "resource2_wc"), O_RDWR), uc = open(sysfs_of(device, "resource2"), O_RDWR);
    void *found[4];
    found[0] = map_record("alias-sysfs-wc-first", wc, combining, 0, PAGE, RW, MAP_SHARED);
    found[1] = map_record("alias-sysfs-uc-second", uc, "resource2", 0, PAGE, RW, MAP_SHARED);
    found[2] = map_record("alias-devmem-third", fd, plain, bar, PAGE, RW, MAP_SHARED);
    found[3] = map_record("alias-devmem-sync-fourth", sync, synced, bar, PAGE, RW, MAP_SHARED);
    for (int i = 0; i < 4; i++)
        unmap(found[i], PAGE);
    found[0] = map_record("alias-devmem-sync-then-wc", sync, synced, bar, PAGE, RW, MAP_SHARED);
    found[1] = map_record("alias-wc-after-devmem-sync", wc, combining, 0, PAGE, RW, MAP_SHARED);
    unmap(found[0], PAGE);
    unmap(found[1], PAGE);
    close(wc);
    close(uc);
}

void phase_mmap_args(void) {
    phase = "mmap-args";
    int fd = open(DEVMEM, O_RDWR);
    if (fd < 0)
        return;
    load_targets();
    struct pci_device *device = find_pci(0x1af4, 0x1110);
    u64 bar = has_memory_bar(device, 2) ? device->bars[2].start : 0xf0000;
    for (size_t i = 0; i < COUNT(maps); i++) {
        int on_bar = !strcmp(maps[i].name, "prot-write-only") || !strcmp(maps[i].name, "populate-private-rw");
        map_and_touch(maps[i].name, fd, DEVMEM " O_RDWR", on_bar ? bar : maps[i].offset, maps[i].length, maps[i].prot,
                      maps[i].flags, 0);
    }
    int sync = open(DEVMEM, O_RDWR | O_SYNC);
    aliases(fd, sync, bar);
    if (device)
        sysfs_aliases(device, fd, sync, bar);
    close(sync);
    close(fd);
}
