/* Phase sysfs-ops: what sysfs and /proc/iomem make of calls that are for other files. */
#include "probe.h"
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/sysmacros.h>

static unsigned char bytes[5000];

/* A read or a write, with what was read. */
static void read_record(const char *name, const char *op, ssize_t got, int shown) {
    begin(name, op);
    answered(got);
    if (shown)
        data_bytes(bytes, got > 0 ? got : 0);
    end();
}

static void open_and_close(const char *name, const char *path, int flags) {
    int fd = open_record(name, path, flags, "root");
    if (fd >= 0)
        close(fd);
}

static void map_answer(const char *name, int fd) {
    void *map = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0);
    answer(name, "mmap", map == MAP_FAILED ? -1 : 0);
}

static void vendor_records(const char *path) {
    static const int flags[] = {O_WRONLY,           O_RDWR,
                                O_WRONLY | O_TRUNC, O_RDONLY | O_CREAT,
                                O_RDONLY | O_CREAT | O_EXCL, O_RDONLY | O_DIRECTORY,
                                O_RDONLY | O_DIRECT};
    struct stat found;
    long waiting;
    int fd = open(path, O_RDONLY);
    fstat(fd, &found);
    begin("vendor-fstat", "fstat");
    result(0, 0);
    integer("size", found.st_size);
    hex("mode", found.st_mode);
    integer("blksize", found.st_blksize);
    end();
    read_record("vendor-read3", "read", read(fd, bytes, 3), 1);
    read_record("vendor-read-rest", "read", read(fd, bytes, 100), 1);
    read_record("vendor-read-eof", "read", read(fd, bytes, 100), 0);
    read_record("vendor-pread-100", "pread", pread(fd, bytes, 10, 100), 0);
    read_record("vendor-pread-2", "pread", pread(fd, bytes, 10, 2), 1);
    answer("vendor-lseek-end", "lseek", lseek(fd, 0, SEEK_END));
    lseek(fd, 0, SEEK_SET);
    read_record("vendor-lseek-0-reread", "read", read(fd, bytes, 100), 0);
    map_answer("vendor-mmap", fd);
    answer("vendor-ioctl", "ioctl", ioctl(fd, FIONREAD, &waiting));
    close(fd);
    for (size_t i = 0; i < COUNT(flags); i++)
        open_and_close("vendor-open-root", path, flags[i]);
}

static void remove_records(const char *path) {
    static const int flags[] = {O_RDONLY, O_RDWR, O_WRONLY | O_APPEND, O_WRONLY | O_TRUNC};
    struct stat found;
    for (size_t i = 0; i < COUNT(flags); i++) {
        int fd = open_record("remove-open-root", path, flags[i], "root");
        if (fd < 0)
            continue;
        answer("remove-read", "read", read(fd, bytes, 10));
        close(fd);
    }
    stat(path, &found);
    begin("remove-stat", "stat");
    result(0, 0);
    hex("mode", found.st_mode);
    integer("size", found.st_size);
    end();
}

static void directory_records(const struct pci_device *device) {
    char target[300];
    const char *folder = sysfs_of(device, ""), *new = sysfs_of(device, "newfile"), *old = sysfs_of(device, "vendor");
    open_and_close("create-new-file", new, O_CREAT | O_RDWR);
    answer("mkdir", "mkdir", mkdir(new, 0755));
    answer("unlink", "unlink", unlink(old));
    answer("rename", "rename", rename(old, "/sys/x"));
    answer("truncate", "truncate", truncate(old, 0));
    answer("chmod-0600-and-back", "chmod", chmod(old, 0600));
    chmod(old, 0444);
    answer("rmdir-device", "rmdir", rmdir(folder));
    ssize_t length = readlink(folder, target, sizeof target - 1);
    begin("readlink-device", "readlink");
    answered(length);
    target[length > 0 ? length : 0] = 0;
    if (length > 0)
        data_text(target);
    end();
    answer("readlink-driver-unbound", "readlink", readlink(sysfs_of(device, "driver"), target, sizeof target - 1));
}

static void user_and_resource(const char *path, u64 bar) {
    int fd = open_record("resource0-user-after-chmod-0644", path, O_RDONLY, "uid1000");
    void *map = map_record("resource0-user-mmap-after-chmod", fd, path, 0, PAGE, PROT_READ, MAP_SHARED);
    if (map != MAP_FAILED)
        touch_read("resource0-user-touch-after-chmod", map, 0, 4, bar,
                   "no capability needed to mmap a BAR through sysfs once the file mode allows open");
}

static void resource_records(const char *path, u64 bar) {
    answer("chmod-resource0-0644-then-user-open", "chmod", chmod(path, 0644));
    AS_USER(user_and_resource(path, bar));
    chmod(path, 0600);
    answer("resource0-truncate", "truncate", truncate(path, 0));
    int fd = open(path, O_RDWR);
    answer("resource0-lseek-end", "lseek", lseek(fd, 0, SEEK_END));
    answer("resource0-lseek-set-0x2000", "lseek", lseek(fd, 0x2000, SEEK_SET));
    answer("resource0-fsync", "fsync", fsync(fd));
    answer("resource0-ftruncate", "ftruncate", ftruncate(fd, 0));
    close(fd);
}

static void config_records(const char *path) {
    static const unsigned char zeros[8];
    int fd = open(path, O_RDWR);
    answer("config-lseek-end", "lseek", lseek(fd, 0, SEEK_END));
    answer("config-read-at-end", "read", read(fd, bytes, 4));
    answer("config-pwrite-cross-end", "pwrite", pwrite(fd, zeros, 8, 252));
    answer("config-pwrite-at-256", "pwrite", pwrite(fd, zeros, 4, 256));
    answer("config-pwrite-len0", "pwrite", pwrite(fd, zeros, 0, 0));
    answer("config-ftruncate", "ftruncate", ftruncate(fd, 0));
    close(fd);
}

static void iomem_records(void) {
    struct stat found;
    open_and_close("iomem-open-rdwr", "/proc/iomem", O_RDWR);
    int fd = open("/proc/iomem", O_RDONLY);
    fstat(fd, &found);
    begin("iomem-fstat", "fstat");
    result(0, 0);
    integer("size", found.st_size);
    hex("mode", found.st_mode);
    end();
    read_record("iomem-read-5", "read", read(fd, bytes, 5), 1);
    read_record("iomem-pread-off100", "pread", pread(fd, bytes, 20, 100), 1);
    answer("iomem-lseek-end", "lseek", lseek(fd, 0, SEEK_END));
    lseek(fd, 0, SEEK_SET);
    answer("iomem-read-big", "read", read(fd, bytes, 5000));
    map_answer("iomem-mmap", fd);
    close(fd);
}

static void memory_records(void) {
    open_and_close("memory-state-open", "/sys/devices/system/memory/memory0/phys_index", O_RDWR);
    read_file("soft_offline_page-read", "/sys/devices/system/memory/soft_offline_page");
    write_file("soft_offline_page-bad", "/sys/devices/system/memory/soft_offline_page", "zz");
    write_file("auto_online-bad", "/sys/devices/system/memory/auto_online_blocks", "zz");
    read_file("probe-file", "/sys/devices/system/memory/probe");
}

/* Device nodes elsewhere. */
static void node_records(void) {
    const char *folder = form("%s/nd", temporary), *node = form("%s/nd/mem", temporary);
    const char *kmem = form("%s/kmem12", temporary);
    mkdir(folder, 0755);
    answer("nodev-mount", "mount", mount("t", folder, "tmpfs", MS_NODEV, NULL));
    mknod(node, S_IFCHR | 0600, makedev(1, 1));
    open_and_close("open-mem-on-nodev-mount", node, O_RDONLY);
    mknod(kmem, S_IFCHR | 0600, makedev(1, 2));
    open_and_close("open-mknod-c-1-2(kmem)", kmem, O_RDONLY);
}

void phase_sysfs_ops(void) {
    phase = "sysfs-ops";
    load_pci();
    struct pci_device *device = find_pci(0x1234, 0x11e8);
    if (!device)
        return;
    vendor_records(sysfs_of(device, "vendor"));
    remove_records(sysfs_of(device, "remove"));
    directory_records(device);
    resource_records(sysfs_of(device, "resource0"), device->bars[0].start);
    config_records(sysfs_of(device, "config"));
    iomem_records();
    memory_records();
    node_records();
}
