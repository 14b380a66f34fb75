/* Addresses worth asking about, and what /dev/mem answers there. */
#include "probe.h"
#include <inttypes.h>

struct target targets[200];
int target_count;
u64 virtio_mem_start, virtio_mem_end;
const struct known_device known_devices[] = {
    {"e1000", 0x8086, 0x100e},      {"nvme", 0x1b36, 0x10},         {"edu", 0x1234, 0x11e8},
    {"testdev", 0x1b36, 5},         {"ivshmem", 0x1af4, 0x1110},    {"vga", 0x1234, 0x1111},
    {"xhci", 0x1b36, 0xd},          {"hda", 0x8086, 0x2668},        {"ahci", 0x8086, 0x2922},
    {"virtio-mem", 0x1af4, 0x1058}, {"virtio-rng", 0x1af4, 0x1044}, {"smbus", 0x8086, 0x2930},
    {"e1000e", 0x8086, 0x10d3},     {"rootport", 0x1b36, 0xc},
};
const int known_count = COUNT(known_devices);

static const struct target low[] = {
    {"zero-page", 0, 16, 2},
    {"zero-page-4k", 0, 4096, 0},
    {"zero-len0-at-0", 0, 0, 0},
    {"len0-at-0x1000", 0x1000, 0, 0},
    {"len0-in-forbidden-RAM", 0x200000, 0, 0},
    {"len0-beyond-physmax", 1ULL << 52, 0, 0},
    {"low-ram-0x1000", 0x1000, 64, 2},
    {"bootsector-0x7c00", 0x7c00, 64, 2},
    {"low-ram-0x8000", 0x8000, 4096, 0},
    {"bda-0x400", 0x400, 64, 0},
    {"low-ram-unaligned", 0x1ffd, 7, 0},
    {"ebda-reserved-0x9fc00", 0x9fc00, 64, 2},
    {"ram-to-ebda-cross", 0x9f000, 0x1000, 0},
    {"lowram-to-vga-cross", 0x9f000, 0x2000, 0},
    {"vga-hole-0xa0000", 0xa0000, 64, 1},
    {"vga-text-0xb8000", 0xb8000, 64, 1},
    {"vga-unaligned-1", 0xb8001, 1, 0},
    {"oprom-0xc0000", 0xc0000, 64, 2},
    {"oprom-0xc8000", 0xc8000, 64, 0},
    {"hole-0xd0000", 0xd0000, 64, 2},
    {"hole-0xe0000", 0xe0000, 64, 0},
    {"bios-0xf0000", 0xf0000, 64, 2},
    {"reset-vector-0xffff0", 0xffff0, 16, 0},
    {"bios-full-64k", 0xf0000, 0x10000, 0},
    {"whole-low-1M", 0, 0x100000, 0},
    {"bios-to-ram-cross-8k", 0xff000, 0x2000, 0},
    {"bios-to-ram-cross-2b", 0xfffff, 2, 2},
    {"ram-0x100000", 0x100000, 64, 2},
    {"ram-0x100000-4k", 0x100000, 4096, 0},
    {"ram-0x1000000", 0x1000000, 64, 0},
};
static const struct target platform[] = {
    {"just-past-dram-0x20000000", 0x20000000, 64, 0},
    {"hole-0x40000000", 0x40000000, 64, 0},
    {"hole-0x40000000-unaligned", 0x40000001, 3, 0},
    {"hole-0x80000000", 0x80000000, 64, 0},
    {"mmconfig-0xb0000000", 0xb0000000, 64, 0},
    {"mmconfig-0xb0008000", 0xb0008000, 256, 0},
    {"pci-hole-nodev-0xd0000000", 0xd0000000, 64, 1},
    {"ioapic-0xfec00000", 0xfec00000, 64, 0},
    {"hpet-0xfed00000", 0xfed00000, 64, 0},
    {"rcba/misc-0xfed1c000", 0xfed1c000, 64, 0},
    {"tpm-0xfed40000", 0xfed40000, 64, 0},
    {"lapic-0xfee00000", 0xfee00000, 64, 0},
    {"flash-0xfffc0000", 0xfffc0000, 64, 0},
    {"flash-top-16", 0xfffffff0, 16, 0},
    {"4G-cross", 0xfffff000, 0x2000, 0},
    {"4G", 0x100000000ULL, 64, 0},
};
static const struct target high[] = {
    {"32G", 0x800000000ULL, 64, 0},
    {"2^39", 1ULL << 39, 64, 0},
    {"2^40-4096", (1ULL << 40) - 4096, 64, 0},
    {"2^40-cross", (1ULL << 40) - 4096, 8192, 0},
    {"2^40", 1ULL << 40, 64, 0},
    {"2^46", 1ULL << 46, 64, 0},
    {"2^52-4096", (1ULL << 52) - 4096, 64, 0},
    {"2^52", 1ULL << 52, 64, 0},
    {"2^63-4096", (1ULL << 63) - 4096, 64, 0},
};

static void add(const char *name, u64 address, u64 length, int store) {
    if (target_count == COUNT(targets))
        return;
    struct target *one = &targets[target_count++];
    snprintf(one->name, sizeof one->name, "%s", name);
    one->address = address;
    one->length = length;
    one->store = store;
}

static void add_all(const struct target *list, size_t count) {
    for (size_t i = 0; i < count; i++)
        add(list[i].name, list[i].address, list[i].length, list[i].store);
}

static void add_kernel(void) {
    static const char *const names[][2] = {{"Kernel code", "kernel-code"},
                                           {"Kernel rodata", "kernel-rodata"},
                                           {"Kernel data", "kernel-data"},
                                           {"Kernel bss", "kernel-bss"}};
    for (size_t i = 0; i < COUNT(names); i++) {
        struct resource *found = find_resource(names[i][0]);
        if (found)
            add(names[i][1], found->start, 64, 0);
    }
}

static void add_top_of_ram(void) {
    u64 top = 0;
    for (int i = 0; i < resource_count; i++) {
        struct resource *one = &resources[i];
        int ram = !strcmp(one->name, "System RAM") && one->depth == 0;
        if (ram && one->start >= 0x100000 && one->end < 0x100000000ULL && one->end > top)
            top = one->end;
    }
    if (!top)
        return;
    add("ram-last-page", top + 1 - PAGE, PAGE, 0);
    add("ram-to-next-cross", top + 1 - PAGE, 2 * PAGE, 0);
    add("just-after-ram", top + 1, 64, 0);
}

static int starts_with(const char *text, const char *start) {
    return !strncmp(text, start, strlen(start));
}

static void add_firmware(void) {
    int found = 0;
    for (int i = 0; i < resource_count && found < 12; i++) {
        struct resource *one = &resources[i];
        int wanted = !strcmp(one->name, "Reserved") || starts_with(one->name, "ACPI") ||
                     starts_with(one->name, "Persistent") || starts_with(one->name, "Soft");
        if (one->depth > 1 || !wanted || one->start < 0x100000)
            continue;
        add(form("%s@%" PRIx64, one->name, one->start), one->start, 64, 0);
        if (one->start < 0x40000000)
            add(form("%s@%" PRIx64 "-last4k", one->name, one->start), one->end + 1 - PAGE, PAGE, 0);
        found++;
    }
}

static void add_bars(void) {
    for (int i = 0; i < known_count; i++) {
        const char *name = known_devices[i].name;
        struct pci_device *device = find_pci(known_devices[i].vendor, known_devices[i].device);
        char driver[32];
        for (int number = 0; device && number < 7; number++) {
            struct bar *bar = &device->bars[number];
            if (!has_memory_bar(device, number))
                continue;
            driver_of(device, driver, sizeof driver);
            add(form("%s-bar%d drv=%s", name, number, driver), bar->start, 64, !strcmp(name, "ivshmem") && number == 2);
            if (bar->end - bar->start + 1 >= 2 * PAGE && number < 6)
                add(form("%s-bar%d-last drv=%s", name, number, driver), bar->end + 1 - PAGE, PAGE, 0);
        }
    }
}

static void add_odd_accesses(void) {
    struct pci_device *device = find_pci(0x1234, 0x11e8);
    if (has_memory_bar(device, 0)) {
        u64 start = device->bars[0].start;
        add("edu-read4", start, 4, 0);
        add("edu-read8", start, 8, 0);
        add("edu-read1", start, 1, 0);
        add("edu-read2", start, 2, 0);
        add("edu-read5", start, 5, 0);
        add("edu-read12-off4", start + 4, 12, 0);
        add("edu-read-off1-len4", start + 1, 4, 0);
    }
    device = find_pci(0x8086, 0x100e);
    if (has_memory_bar(device, 0)) {
        u64 start = device->bars[0].start, stop = device->bars[0].end + 1;
        add("e1000-status-4", start + 8, 4, 0);
        add("e1000-bar0-unaligned", start + 9, 3, 0);
        add("e1000-bar0-past-end", stop, 64, 0);
        add("e1000-bar0-cross-end", stop - PAGE, 2 * PAGE, 0);
    }
    device = find_pci(0x1af4, 0x1110);
    if (has_memory_bar(device, 2)) {
        u64 start = device->bars[2].start, stop = device->bars[2].end + 1;
        add("ivshmem-bar2-+1M", start + 0x100000, 64, 0);
        add("ivshmem-bar2-cross-end", stop - PAGE, 2 * PAGE, 0);
        add("ivshmem-bar2-4M", start, 4 << 20, 0);
    }
}

static void add_virtio_mem(void) {
    static const struct {
        const char *name;
        u64 megabytes;
    } places[] = {{"vmem+0", 0},     {"vmem+16M", 16}, {"vmem+160M", 160}, {"vmem+264M", 264}, {"vmem+300M(unplugged?)", 300},
                  {"vmem+512M", 512}};
    if (!virtio_mem_start)
        return;
    for (size_t i = 0; i < COUNT(places); i++)
        add(places[i].name, virtio_mem_start + (places[i].megabytes << 20), 64, 0);
    add("vmem-last", virtio_mem_end + 1 - PAGE, PAGE, 0);
    add("vmem-end-cross", virtio_mem_end + 1 - PAGE, 2 * PAGE, 0);
    add("vmem-past-end", virtio_mem_end + 1, 64, 0);
    add("vmem-before-start-cross", virtio_mem_start - PAGE, 2 * PAGE, 0);
}

static void add_by_name(void) {
    int found = 0;
    for (int i = 0; i < resource_count && found < 4; i++) {
        struct resource *one = &resources[i];
        if (!strstr(one->name, "namespace") && !strstr(one->name, "dax"))
            continue;
        add(form("nd:%s@%" PRIx64, one->name, one->start), one->start, 64, 0);
        found++;
    }
    for (int i = 0; i < resource_count; i++) {
        struct resource *one = &resources[i];
        if (!starts_with(one->name, "PCI Bus 0000:00") || one->start < 0x100000000ULL)
            continue;
        add("pci-64bit-window", one->start, 64, 0);
        add("pci-64bit-window-last", one->end + 1 - PAGE, PAGE, 0);
    }
}

void load_targets(void) {
    target_count = 0;
    load_iomem();
    load_pci();
    add_all(low, COUNT(low));
    add_kernel();
    add_top_of_ram();
    add_firmware();
    add_all(platform, COUNT(platform));
    add_bars();
    add_odd_accesses();
    add_virtio_mem();
    add_by_name();
    add_all(high, COUNT(high));
}

static void map_target(const struct target *one, int fd, int sync, int full) {
    static const char what[] = DEVMEM " O_RDWR";
    u64 offset = one->address & ~(PAGE - 1);
    u64 length = ((one->address + one->length + PAGE - 1) & ~(PAGE - 1)) - offset;
    if (length == 0 || length > (1ULL << 40))
        length = PAGE;
    map_and_touch(one->name, fd, what, offset, length, PROT_READ, MAP_SHARED, 0);
    if (!full)
        return;
    map_and_touch(one->name, fd, what, offset, length, RW, MAP_SHARED, one->store == 1);
    map_and_touch(one->name, fd, what, offset, length, PROT_READ, MAP_PRIVATE, 0);
    map_and_touch(one->name, fd, what, offset, length, RW, MAP_PRIVATE, one->store != 0);
    map_and_touch(one->name, sync, DEVMEM " O_RDWR|O_SYNC", offset, length, PROT_READ, MAP_SHARED, 0);
}

void matrix(const char *name, int full) {
    unsigned char pattern[64];
    for (size_t i = 0; i < sizeof pattern; i++)
        pattern[i] = 0x50 + i;
    phase = name;
    load_targets();
    int fd = open(DEVMEM, O_RDWR), sync = open(DEVMEM, O_RDWR | O_SYNC);
    if (fd < 0)
        return;
    snapshot("/proc/iomem", form("iomem-%s.txt", name));
    snapshot("/sys/kernel/debug/x86/pat_memtype_list", form("pat-%s.txt", name));
    for (int i = 0; i < target_count; i++) {
        const struct target *one = &targets[i];
        read_at(one->name, fd, DEVMEM " O_RDWR", one->address, one->length);
        if (one->store)
            write_at(one->name, fd, DEVMEM " O_RDWR", one->address, pattern, one->length > 64 ? 64 : one->length);
        map_target(one, fd, sync, full);
    }
    close(fd);
    close(sync);
}
