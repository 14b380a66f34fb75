/* Phases sysfs and sysfs-bound: the files of PCI functions. */
#include "probe.h"
#include <linux/capability.h>
#include <sys/ioctl.h>

static const char *files_of_device =
    "cd %s && for f in *; do [ -f \"$f\" ] || continue; "
    "case $f in config|rom|resource[0-9]*|remove|reset|rescan) continue;; esac; "
    "echo \"== $f: $(cat $f 2>&1 | tr '\\n' '|')\"; done > %s 2>&1; "
    "for l in driver iommu_group subsystem physfn; do [ -L $l ] && echo \"-> $l $(readlink $l)\"; done >> %s";

static void enumerate(const struct pci_device *device, const char *tag) {
    char driver[32], command[2048];
    driver_of(device, driver, sizeof driver);
    begin("pci-device", "enumerate");
    text("bdf", device->bdf);
    hex("vendor", device->vendor);
    hex("device", device->device);
    hex("class", device->class);
    result_text(driver);
    key("resources");
    raw("[");
    for (int i = 0; i < device->bar_count; i++) {
        const struct bar *bar = &device->bars[i];
        raw("%s\"0x%llx 0x%llx 0x%llx\"", i ? "," : "", (unsigned long long)bar->start, (unsigned long long)bar->end,
            (unsigned long long)bar->flags);
    }
    raw("]");
    end();
    list_directory(sysfs_of(device, ""), form("sysfs-%s-%s.ls", tag, device->bdf), 0);
    const char *target = form("%s/sysfs-%s-%s.txt", out_folder, tag, device->bdf);
    snprintf(command, sizeof command, files_of_device, sysfs_of(device, ""), target, target);
    shell(command);
}

/* -- config */

static void begin_of(const char *name, const char *op, const struct pci_device *device) {
    begin(name, op);
    text("dev", device->bdf);
}

static void config_reads(const struct pci_device *device, int fd) {
    static const struct {
        u64 offset;
        size_t length;
    } all[] = {{0, 4},    {0, 64},   {0, 256},  {0, 4096},  {0, 5000},  {2, 2},    {1, 3},
               {60, 8},   {64, 16},  {252, 16}, {256, 16},  {4092, 16}, {4096, 4}, {0, 0}};
    unsigned char bytes[5000];
    for (size_t i = 0; i < COUNT(all); i++) {
        begin_of("config-read-root", "pread", device);
        hex("off", all[i].offset);
        integer("len", all[i].length);
        ssize_t got = pread(fd, bytes, all[i].length, all[i].offset);
        answered(got);
        if (got > 0)
            data_bytes(bytes, got > 16 ? 16 : got);
        end();
    }
    (void)!pread(fd, bytes, 2, 4);
    answer("config-write-root-cmdreg", "pwrite", pwrite(fd, bytes, 2, 4));
    answer("config-write-past-end", "pwrite", pwrite(fd, bytes, 4, 4096));
    void *map = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0);
    answer("config-mmap", "mmap", map == MAP_FAILED ? -1 : 0);
}

static void config_of_root(const struct pci_device *device) {
    int fd = open(sysfs_of(device, "config"), O_RDWR);
    struct stat found;
    if (fd < 0) {
        int error = errno;
        begin_of("config-open-rdwr", "open", device);
        result(-1, error);
        end();
        return;
    }
    fstat(fd, &found);
    begin_of("config-fstat", "fstat", device);
    result(0, 0);
    integer("size", found.st_size);
    end();
    config_reads(device, fd);
    AS_USER({
        unsigned char bytes[300];
        ssize_t got = pread(fd, bytes, 256, 0);
        begin("config-read-rootfd-by-user", "pread");
        answered(got);
        note("fd opened by root, read by uid1000");
        end();
    });
    close(fd);
}

static void config_of_user(const struct pci_device *device) {
    unsigned char bytes[300];
    int fd = open(sysfs_of(device, "config"), O_RDONLY);
    int error = fd < 0 ? errno : 0;
    begin_of("config-open-user", "open", device);
    result(fd < 0 ? -1 : 0, error);
    end();
    if (fd >= 0) {
        answer("config-read-user", "pread", pread(fd, bytes, 256, 0));
        answer("config-read-user-off64", "pread", pread(fd, bytes, 16, 64));
        answer("config-read-user-off60-len8", "pread", pread(fd, bytes, 8, 60));
    }
    fd = open(sysfs_of(device, "config"), O_RDWR);
    answer("config-open-user-rdwr", "open", fd < 0 ? -1 : 0);
}

/* -- resourceN */

static void resource_reads(const char *name, int fd, u64 size, int is_memory) {
    unsigned char bytes[8];
    for (int width = 1; width <= 8; width *= 2) {
        begin(name, "pread");
        integer("len", width);
        integer("off", 0);
        ssize_t got = pread(fd, bytes, width, 0);
        answered(got);
        if (got > 0)
            data_bytes(bytes, got);
        end();
    }
    begin(name, "pread");
    integer("len", 3);
    integer("off", 0);
    answered(pread(fd, bytes, 3, 0));
    end();
    begin(name, "pread");
    integer("len", 4);
    hex("off", size);
    answered(pread(fd, bytes, 4, size));
    end();
    begin(name, "pread");
    integer("len", 0);
    answered(pread(fd, bytes, 0, 0));
    end();
    begin(name, "pwrite");
    integer("len", 4);
    integer("off", 0);
    if (is_memory) {
        answered(pwrite(fd, "\0\0\0\0", 4, 0));
    } else {
        result(-1, 0);
        note("skipped for IO BAR");
    }
    end();
    answer(name, "lseek-END", lseek(fd, 0, SEEK_END));
}

static void resource_map(const char *name, int fd, u64 offset, u64 length, int prot, int flags, u64 start) {
    volatile u32 word = 0;
    begin(name, "mmap+touch");
    hex("off", offset);
    hex("len", length);
    text("prot", prot_name(prot));
    text("flags", map_flags_name(flags));
    char *map = (char *)syscall(SYS_mmap, 0, length, prot, flags, fd, offset);
    answered(map == MAP_FAILED ? -1 : 0);
    if (map != MAP_FAILED) {
        char found[600];
        if (TRY(word = *(volatile u32 *)map)) {
            signal_field(map, start);
        } else {
            u32 loaded = word;
            data_bytes(&loaded, sizeof loaded);
        }
        smaps_of(map, found, sizeof found);
        if (found[0])
            text("smaps", found);
        munmap(map, length);
    }
    end();
}

static void resource_maps(const char *name, const struct bar *bar, int fd, int read_only) {
    u64 size = bar->end - bar->start + 1, pages = (size + PAGE - 1) & ~(PAGE - 1);
    u64 last = size >= PAGE ? size - PAGE : 0;
    const struct {
        const char *name;
        u64 offset, length;
        int prot, flags, fd;
    } all[] = {
        {"1page", 0, PAGE, PROT_READ, MAP_SHARED, fd},
        {"1page-rw", 0, PAGE, RW, MAP_SHARED, fd},
        {"1page-private", 0, PAGE, PROT_READ, MAP_PRIVATE, fd},
        {"1page-private-rw", 0, PAGE, RW, MAP_PRIVATE, fd},
        {"full", 0, size, RW, MAP_SHARED, fd},
        {"full+1", 0, pages + 1, PROT_READ, MAP_SHARED, fd},
        {"off=len", pages, PAGE, PROT_READ, MAP_SHARED, fd},
        {"last-page", last, PAGE, PROT_READ, MAP_SHARED, fd},
        {"last-page-2pages", last, 2 * PAGE, PROT_READ, MAP_SHARED, fd},
        {"bus-addr-as-offset", bar->start & ~(PAGE - 1), PAGE, PROT_READ, MAP_SHARED, fd},
        {"unaligned", 1, PAGE, PROT_READ, MAP_SHARED, fd},
        {"ro-fd-rw", 0, PAGE, RW, MAP_SHARED, read_only},
        {"exec", 0, PAGE, PROT_READ | PROT_EXEC, MAP_SHARED, fd},
    };
    for (size_t i = 0; i < COUNT(all); i++)
        resource_map(form("%s mmap-%s", name, all[i].name), all[i].fd, all[i].offset, all[i].length, all[i].prot,
                     all[i].flags, bar->start);
}

static void resource_records(const struct pci_device *device, int number) {
    const struct bar *bar = &device->bars[number];
    u64 size = bar->end - bar->start + 1;
    int is_memory = bar->flags & 0x200;
    char path[256], name[128];
    struct stat found;
    snprintf(path, sizeof path, "%s", sysfs_of(device, form("resource%d", number)));
    snprintf(name, sizeof name, "%s-resource%d(%s,len=0x%llx)", device->bdf, number, is_memory ? "mem" : "io",
             (unsigned long long)size);
    AS_USER(open_record(form("resource%d-open-user", number), path, O_RDONLY, "uid1000"));
    IN_CHILD({
        drop_capability(CAP_SYS_RAWIO);
        open_record("resourceN-open-root-without-RAWIO", path, O_RDWR, "uid0 minus CAP_SYS_RAWIO");
    });
    int read_only = open_record(name, path, O_RDONLY, "root"), fd = open_record(name, path, O_RDWR, "root");
    if (fd >= 0) {
        fstat(fd, &found);
        begin(name, "fstat");
        result(0, 0);
        integer("size", found.st_size);
        hex("mode", found.st_mode);
        end();
        resource_reads(name, fd, size, is_memory);
        resource_maps(name, bar, fd, read_only);
        close(fd);
    }
    if (read_only >= 0)
        close(read_only);
}

static void rom_records(const struct pci_device *device) {
    const char *path = sysfs_of(device, "rom");
    struct stat found;
    if (access(path, F_OK))
        return;
    read_file("rom-read-before-enable", path);
    write_file("rom-enable", path, "1");
    read_file("rom-read-after-enable", path);
    write_file("rom-disable", path, "0");
    stat(path, &found);
    begin("rom-stat", "stat");
    result(0, 0);
    integer("size", found.st_size);
    hex("mode", found.st_mode);
    end();
}

static void device_records(const struct pci_device *device) {
    config_of_root(device);
    AS_USER(config_of_user(device));
    for (int number = 0; number < 6 && number < device->bar_count; number++)
        if (device->bars[number].flags)
            resource_records(device, number);
    rom_records(device);
    begin("resource0_resize-exists", "access");
    result(access(sysfs_of(device, "resource0_resize"), F_OK), 0);
    end();
}

/* -- what decodes may change under a mapping */

static void enable_records(const struct pci_device *device) {
    const char *path = sysfs_of(device, "enable");
    read_file("edu-enable-read", path);
    write_file("edu-enable-1", path, "1");
    read_file("edu-enable-read-after", path);
    write_file("edu-enable-0", path, "0");
    write_file("edu-enable-0-again", path, "0");
    write_file("edu-enable-bad", path, "x");
    AS_USER(write_file("edu-enable-user", path, "1"));
}

static void decode_off(const struct pci_device *device, int config, int devmem, char *map) {
    u64 bar = device->bars[0].start;
    uint16_t command = 0, off;
    (void)!pread(config, &command, 2, 4);
    touch_read("edu-before-mem-decode-off", map, 0, 4, bar, NULL);
    off = command & ~2;
    long put = pwrite(config, &off, 2, 4);
    begin("edu-config-clear-MEM", "pwrite");
    answered(put);
    hex("cmd_before", command);
    end();
    touch_read("edu-after-mem-decode-off", map, 0, 4, bar, "PCI_COMMAND.MEM cleared via config");
    touch_write("edu-write-mem-decode-off", map, 4, 4, 1, bar, NULL);
    map_and_touch("edu-mmap-mem-decode-off", devmem, DEVMEM, bar, PAGE, PROT_READ, MAP_SHARED, 0);
    int fd = open(sysfs_of(device, "resource0"), O_RDWR);
    void *other = map_record("edu-sysfs-mmap-mem-decode-off", fd, "resource0", 0, PAGE, PROT_READ, MAP_SHARED);
    if (other != MAP_FAILED)
        touch_read("edu-sysfs-touch-mem-decode-off", other, 0, 4, bar, NULL);
    unmap(other, PAGE);
    if (fd >= 0)
        close(fd);
    (void)!pwrite(config, &command, 2, 4);
    touch_read("edu-after-mem-decode-on", map, 0, 4, bar, NULL);
}

static void decode_elsewhere(const struct pci_device *device, int config, int devmem, char *map) {
    const u32 elsewhere = 0xd0000000;
    u64 bar = device->bars[0].start;
    u32 old = 0;
    (void)!pread(config, &old, 4, 0x10);
    touch_read("edu-before-bar-rewrite", map, 0, 4, bar, NULL);
    long put = pwrite(config, &elsewhere, 4, 0x10);
    begin("edu-config-rewrite-BAR0", "pwrite");
    answered(put);
    hex("old", old);
    end();
    touch_read("edu-old-addr-after-bar-rewrite", map, 0, 4, bar,
               "BAR moved to 0xd0000000 by config write; kernel unaware");
    map_and_touch("edu-new-addr-after-bar-rewrite", devmem, DEVMEM, elsewhere, PAGE, PROT_READ, MAP_SHARED, 0);
    read_file("edu-resource-file-after-bar-rewrite", sysfs_of(device, "resource"));
    (void)!pwrite(config, &old, 4, 0x10);
    touch_read("edu-after-bar-restore", map, 0, 4, bar, NULL);
}

static void decode_records(const struct pci_device *device) {
    int config = open(sysfs_of(device, "config"), O_RDWR), devmem = open(DEVMEM, O_RDWR);
    char *map = MAP_FAILED;
    if (config >= 0 && devmem >= 0)
        map = mmap(NULL, PAGE, RW, MAP_SHARED, devmem, device->bars[0].start);
    if (map != MAP_FAILED) {
        decode_off(device, config, devmem, map);
        decode_elsewhere(device, config, devmem, map);
        munmap(map, PAGE);
    }
    if (config >= 0)
        close(config);
    if (devmem >= 0)
        close(devmem);
}

static void proc_map(const char *name, int fd, const char *path, u64 bar) {
    void *map = map_record(name, fd, path, bar, PAGE, PROT_READ, MAP_SHARED);
    if (map != MAP_FAILED)
        touch_read("proc-bus-pci-touch", map, 0, 4, bar, NULL);
    unmap(map, PAGE);
}

static void proc_records(const struct pci_device *device) {
    const char *path = strdup(proc_of(device));
    int fd = open_record("proc-bus-pci-open", path, O_RDWR, "root");
    struct stat found;
    if (fd >= 0) {
        fstat(fd, &found);
        begin("proc-bus-pci-fstat", "fstat");
        result(0, 0);
        integer("size", found.st_size);
        end();
        proc_map("proc-bus-pci-mmap-without-ioctl", fd, path, device->bars[0].start);
        answer("proc-bus-pci-ioctl-MMAP_IS_MEM", "ioctl", ioctl(fd, PCIIOC_MMAP_IS_MEM_, 0));
        proc_map("proc-bus-pci-mmap-mem", fd, path, device->bars[0].start);
        close(fd);
    }
    AS_USER({
        unsigned char bytes[300];
        int user = open_record("proc-bus-pci-open-user", path, O_RDONLY, "uid1000");
        if (user >= 0)
            answer("proc-bus-pci-read-user", "read", read(user, bytes, 256));
    });
    free((void *)path);
}

void phase_sysfs(const char *name) {
    static const struct known_device wanted[] = {
        {"e1000", 0x8086, 0x100e}, {"ivshmem", 0x1af4, 0x1110}, {"edu", 0x1234, 0x11e8}, {"testdev", 0x1b36, 5}};
    phase = name;
    load_pci();
    load_iomem();
    for (int i = 0; i < device_count; i++)
        enumerate(&devices[i], name);
    if (strcmp(name, "sysfs"))
        return;
    for (size_t i = 0; i < COUNT(wanted); i++) {
        struct pci_device *device = find_pci(wanted[i].vendor, wanted[i].device);
        if (device)
            device_records(device);
    }
    struct pci_device *edu = find_pci(0x1234, 0x11e8);
    if (edu) {
        enable_records(edu);
        decode_records(edu);
        proc_records(edu);
    }
    snapshot("/proc/bus/pci/devices", "proc-bus-pci-devices.txt");
    read_file("pci-drivers_autoprobe", "/sys/bus/pci/drivers_autoprobe");
}
