/* Phases remove-* and cross-write: a function goes away under open files and mappings; one BAR ends where the next
 * begins, which a driver has. */
#include "probe.h"
#include <sys/ioctl.h>
#include <sys/uio.h>

static struct pci_device device;
static u64 start, length;
static int bar;
static char folder[256], resource_path[256], proc_path[128];
static int fd, resource, config, vendor, directory, proc;
static char *devmem_map, *sysfs_map, *private_map;
static unsigned char bytes[300];

static void open_all(void) {
    fd = open(DEVMEM, O_RDWR);
    resource = open(resource_path, O_RDWR);
    config = open(sysfs_of(&device, "config"), O_RDWR);
    vendor = open(sysfs_of(&device, "vendor"), O_RDONLY);
    directory = open(folder, O_RDONLY | O_DIRECTORY);
    proc = open(proc_path, O_RDWR);
    devmem_map = map_record("devmem", fd, DEVMEM, start, length, RW, MAP_SHARED);
    sysfs_map = map_record("sysfs", resource, resource_path, 0, length, RW, MAP_SHARED);
    private_map = map_record("sysfs-private", resource, resource_path, 0, PAGE, RW, MAP_PRIVATE);
    if (devmem_map != MAP_FAILED)
        touch_read("before devmem", devmem_map, 0, 4, start, NULL);
    if (sysfs_map != MAP_FAILED)
        touch_read("before sysfs", sysfs_map, 0, 4, start, NULL);
    AS_USER({
        write_file("remove-as-user", form("%s/remove", folder), "1");
        write_file("rescan-as-user", "/sys/bus/pci/rescan", "1");
    });
    if (private_map != MAP_FAILED)
        touch_write("before sysfs-private-COW", private_map, 0x20, 4, 0x12344321, start, NULL);
    if (resource >= 0)
        stat_record("before fstat-resource", resource);
}

static void go(const char *del) {
    if (del) {
        monitor_record("qemu-device_del", del);
        settle(7000);
        return;
    }
    const char *path = form("%s/remove", folder);
    write_file("remove-bad-value", path, "x");
    write_file("remove-0", path, "0");
    write_file("remove-1", path, "1");
    settle(300);
}

static void come_back(const char *del, const char *add) {
    if (!del) {
        write_file("rescan-bad", "/sys/bus/pci/rescan", "x");
        write_file("rescan-1", "/sys/bus/pci/rescan", "1");
        settle(800);
    } else if (add) {
        monitor_record("qemu-device_add", add);
        settle(4000);
    }
}

static void exists_record(const char *name) {
    int status = access(folder, F_OK), error = status ? errno : 0;
    begin(name, "access");
    text("path", folder);
    result(status, error);
    end();
}

static void gone_names(void) {
    char path[300];
    exists_record("exists-after");
    load_iomem();
    iomem_path(start, path, sizeof path);
    begin("iomem-after", "read");
    result(0, 0);
    data_text(path);
    end();
}

static void gone_maps(void) {
    if (devmem_map != MAP_FAILED)
        touch_read("removed touch-devmem", devmem_map, 0, 4, start, NULL);
    if (sysfs_map != MAP_FAILED)
        touch_read("removed touch-sysfs", sysfs_map, 0, 4, start, NULL);
    if (private_map != MAP_FAILED)
        touch_read("removed touch-sysfs-private-COW", private_map, 0x20, 4, start, NULL);
}

static void gone_resource(void) {
    answer("removed pread-resource-fd", "pread", pread(resource, bytes, 4, 0));
    answer("removed pwrite-resource-fd", "pwrite", pwrite(resource, bytes, 4, 0));
    answer("removed lseek-resource-fd", "lseek", lseek(resource, 0, SEEK_SET));
    char *map = map_record("removed mmap-resource-fd", resource, resource_path, 0, PAGE, PROT_READ, MAP_SHARED);
    if (map != MAP_FAILED)
        touch_read("removed touch-newmap-resource-fd", map, 0, 4, start, NULL);
    unmap(map, PAGE);
}

static void gone_proc(void) {
    answer("removed pread-procbuspci-fd", "pread", pread(proc, bytes, 64, 0));
    ioctl(proc, PCIIOC_MMAP_IS_MEM_, 0);
    unmap(map_record("removed mmap-procbuspci-fd", proc, proc_path, start, PAGE, PROT_READ, MAP_SHARED), PAGE);
}

static void gone_files(void) {
    if (resource >= 0)
        stat_record("removed fstat-resource-fd", resource);
    if (config >= 0)
        stat_record("removed fstat-config-fd", config);
    if (resource >= 0)
        gone_resource();
    if (config >= 0) {
        answer("removed pread-config-fd", "pread", pread(config, bytes, 64, 0));
        answer("removed pwrite-config-fd", "pwrite", pwrite(config, bytes, 2, 4));
    }
    if (vendor >= 0)
        answer("removed pread-vendor-fd", "pread", pread(vendor, bytes, 64, 0));
    if (directory >= 0) {
        int inside = openat(directory, "vendor", O_RDONLY);
        answer("removed openat-dirfd-vendor", "openat", inside < 0 ? -1 : 0);
        answer("removed getdents-dirfd", "getdents", syscall(SYS_getdents64, directory, bytes, sizeof bytes));
    }
    if (proc >= 0)
        gone_proc();
    open_record("removed open-resource", resource_path, O_RDWR, "root");
}

static void gone_memory(void) {
    map_and_touch("removed devmem-mmap", fd, DEVMEM, start, PAGE, PROT_READ, MAP_SHARED, 0);
    read_at("removed devmem-pread", fd, DEVMEM, start, 16);
    if (sysfs_map == MAP_FAILED)
        return;
    answer("removed msync-sysfs-map", "msync", msync(sysfs_map, length, MS_SYNC));
    smaps_record("removed smaps-sysfs", sysfs_map);
}

static void old_files(void) {
    stat_record("rescanned fstat-old-resource-fd", resource);
    unmap(map_record("rescanned mmap-old-resource-fd", resource, "old fd", 0, PAGE, PROT_READ, MAP_SHARED), PAGE);
    answer("rescanned pread-old-config-fd", "pread", pread(config, bytes, 64, 0));
}

static void new_files(const struct pci_device *new) {
    char path[256];
    snprintf(path, sizeof path, "%s", sysfs_of(new, form("resource%d", bar)));
    int again = open_record("rescanned open-new-resource", path, O_RDWR, "root");
    if (again < 0)
        return;
    stat_record("rescanned fstat-new-resource-fd", again);
    char *map = map_record("rescanned mmap-new-resource-fd", again, path, 0, PAGE, PROT_READ, MAP_SHARED);
    if (map != MAP_FAILED)
        touch_read("rescanned touch-new-sysfs", map, 0, 4, new->bars[bar].start, NULL);
    unmap(map, PAGE);
    close(again);
}

static void back(unsigned vendor_id, unsigned id) {
    exists_record("exists-after-rescan");
    load_pci();
    struct pci_device *found = find_pci(vendor_id, id);
    if (!found)
        return;
    struct pci_device new = *found;
    driver_state("state-after-rescan", &new, bar);
    begin("bar-after-rescan", "state");
    result(0, 0);
    hex("old", start);
    hex("new", new.bars[bar].start);
    text("old_bdf", device.bdf);
    text("new_bdf", new.bdf);
    end();
    if (devmem_map != MAP_FAILED)
        touch_read("rescanned touch-old-devmem", devmem_map, 0, 4, start, NULL);
    if (sysfs_map != MAP_FAILED)
        touch_read("rescanned touch-old-sysfs", sysfs_map, 0, 4, start, NULL);
    if (resource >= 0)
        old_files();
    new_files(&new);
    map_and_touch("rescanned devmem-mmap", fd, DEVMEM, new.bars[bar].start & ~(PAGE - 1), PAGE, PROT_READ, MAP_SHARED,
                  0);
}

static void close_all(void) {
    const int all[] = {fd, resource, config, vendor, directory, proc};
    unmap(devmem_map, length);
    if (sysfs_map != MAP_FAILED)
        answer("munmap-old-sysfs", "munmap", munmap(sysfs_map, length));
    unmap(private_map, PAGE);
    for (size_t i = 0; i < COUNT(all); i++)
        if (all[i] >= 0)
            close(all[i]);
}

static int choose(unsigned vendor_id, unsigned id, int number) {
    load_pci();
    struct pci_device *found = find_pci(vendor_id, id);
    if (!has_memory_bar(found, number)) {
        begin("no-device", "skip");
        result(-1, ENODEV);
        end();
        return 0;
    }
    device = *found;
    bar = number;
    start = device.bars[bar].start & ~(PAGE - 1);
    length = (device.bars[bar].end - device.bars[bar].start + 1 + PAGE - 1) & ~(PAGE - 1);
    if (length > 0x100000)
        length = 0x100000;
    snprintf(folder, sizeof folder, "%s", sysfs_of(&device, ""));
    snprintf(resource_path, sizeof resource_path, "%s", sysfs_of(&device, form("resource%d", bar)));
    snprintf(proc_path, sizeof proc_path, "%s", proc_of(&device));
    return 1;
}

void phase_remove(const char *name, unsigned vendor_id, unsigned id, int number, const char *del, const char *add) {
    static char name_of_phase[64];
    snprintf(name_of_phase, sizeof name_of_phase, "remove-%s", name);
    phase = name_of_phase;
    if (!choose(vendor_id, id, number))
        return;
    driver_state("state-before", &device, bar);
    open_all();
    go(del);
    gone_names();
    gone_maps();
    gone_files();
    gone_memory();
    come_back(del, add);
    back(vendor_id, id);
    close_all();
}

static void cross(u64 edge) {
    static const char allowed[] = "first 8 bytes target ivshmem BAR2 tail (allowed), last 8 VGA BAR0 (claimed by bochs)";
    unsigned char pattern[16];
    struct iovec halves[2] = {{pattern, 8}, {pattern + 8, 8}};
    int devmem = open(DEVMEM, O_RDWR);
    if (devmem < 0)
        return;
    memset(pattern, 0x77, sizeof pattern);
    map_and_touch("before(mmap last page of allowed)", devmem, DEVMEM, edge - PAGE, PAGE, PROT_READ, MAP_SHARED, 0);
    read_at("pread-cross-into-claimed", devmem, DEVMEM, edge - 8, 16);
    begin("pwrite-cross-into-claimed", "pwrite");
    hex("off", edge - 8);
    integer("len", 16);
    answered(pwrite(devmem, pattern, sizeof pattern, edge - 8));
    note(allowed);
    end();
    read_at("readback-of-allowed-part", devmem, DEVMEM, edge - 8, 8);
    lseek(devmem, edge - 8, SEEK_SET);
    begin("write-cross-fpos", "write");
    answered(write(devmem, pattern, sizeof pattern));
    hex("pos_after", lseek(devmem, 0, SEEK_CUR));
    end();
    map_and_touch("mmap-cross-into-claimed", devmem, DEVMEM, edge - PAGE, 2 * PAGE, PROT_READ, MAP_SHARED, 0);
    answer("pwritev-2x8-cross", "pwritev", pwritev(devmem, halves, 2, edge - 8));
    answer("preadv-2x8-cross", "preadv", preadv(devmem, halves, 2, edge - 8));
    close(devmem);
}

void phase_cross_write(void) {
    phase = "cross-write";
    shell_record("modprobe-bochs", "modprobe bochs; sleep 1");
    load_pci();
    load_iomem();
    struct pci_device *shared = find_pci(0x1af4, 0x1110), *graphics = find_pci(0x1234, 0x1111);
    int adjacent = has_memory_bar(shared, 2) && has_memory_bar(graphics, 0) &&
                   shared->bars[2].end + 1 == graphics->bars[0].start;
    if (!adjacent) {
        begin("cross-write", "skip");
        result(-1, ENODEV);
        end();
        return;
    }
    driver_state("state", graphics, 0);
    cross(shared->bars[2].end + 1);
}
