/* Phase vm-ops: mappings of /dev/mem and of BARs under everything that the memory management offers. */
#include "probe.h"

static const char private_map[] = "devmem-ivshmem-PRIVATE";

static void *mapped(int fd, u64 offset, size_t length, int flags) {
    return fd < 0 ? MAP_FAILED : mmap(NULL, length, RW, flags, fd, offset);
}

static void file_pages(int fd, u64 bar) {
    char *map = mapped(fd, bar, 4 * PAGE, MAP_SHARED);
    if (map == MAP_FAILED)
        return;
    touch_write("rfp-mark", map, 0x1000, 4, 0x11110000, bar, NULL);
    int status = remap_file_pages(map, PAGE, 0, 1, 0);
    begin("remap_file_pages-pgoff1", "remap_file_pages");
    answered(status);
    note("pgoff is relative to the /dev/mem FILE, i.e. remaps to physical 0x1000");
    end();
    smaps_record("remap_file_pages-smaps", map);
    touch_read("after-remap_file_pages", map, 0, 4, 0x1000, NULL);
    answer("remap_file_pages-pgoff-same", "remap_file_pages",
           remap_file_pages(map + 2 * PAGE, PAGE, 0, bar / PAGE + 3, 0));
    munmap(map, 4 * PAGE);
}

static void not_for_children(int fd, u64 bar) {
    char *map = mapped(fd, bar, 2 * PAGE, MAP_SHARED);
    if (map == MAP_FAILED)
        return;
    answer("madvise-DONTFORK", "madvise", madvise(map, 2 * PAGE, MADV_DONTFORK));
    int status = madvise(map, 2 * PAGE, MADV_DOFORK);
    begin("madvise-DOFORK-after", "madvise");
    answered(status);
    note("VM_IO forbids undoing DONTFORK");
    end();
    IN_CHILD(touch_read("child-touch-after-DONTFORK", map, 0, 4, bar, NULL));
    munmap(map, 2 * PAGE);
}

static void shared_memory(int fd, const struct pci_device *device, u64 bar) {
    char *map = map_record("vmops-devmem-map", fd, DEVMEM, bar, 8 * PAGE, RW, MAP_SHARED);
    if (map != MAP_FAILED) {
        pagemap_record("pagemap-devmem-ivshmem", map);
        vm_records("devmem-ivshmem", map, 8 * PAGE, bar, 1);
    }
    map = mapped(fd, bar, 8 * PAGE, MAP_SHARED);
    if (map != MAP_FAILED)
        remap_records("devmem-ivshmem", map, 8 * PAGE, bar);
    map = mapped(fd, bar, 8 * PAGE, MAP_PRIVATE);
    if (map != MAP_FAILED)
        remap_records(private_map, map, 8 * PAGE, bar);
    int resource = open(sysfs_of(device, "resource2"), O_RDWR);
    if (resource < 0)
        return;
    map = map_record("vmops-sysfs-map", resource, "resource2", 0, 8 * PAGE, RW, MAP_SHARED);
    if (map != MAP_FAILED)
        vm_records("sysfs-ivshmem", map, 8 * PAGE, bar, 1);
    map = mapped(resource, 0, 8 * PAGE, MAP_SHARED);
    if (map != MAP_FAILED)
        remap_records("sysfs-ivshmem", map, 8 * PAGE, bar);
    close(resource);
}

static void registers(int fd) {
    struct pci_device *device = find_pci(0x1234, 0x11e8);
    if (!has_memory_bar(device, 0))
        return;
    u64 bar = device->bars[0].start;
    char *map = map_record("vmops-edu-map", fd, DEVMEM, bar, 4 * PAGE, RW, MAP_SHARED);
    if (map == MAP_FAILED)
        return;
    touch_read("edu-id-u32", map, 0, 4, bar, "expect ed0000.. id 0x010000ed");
    touch_read("edu-id-u8", map, 0, 1, bar, "device only answers 4-byte below 0x80");
    touch_read("edu-id-u64", map, 0, 8, bar, NULL);
    touch_write("edu-liveness", map, 4, 4, 0x12345678, bar, "readback should be inverted");
    vm_records("devmem-edu", map, 4 * PAGE, bar, 0);
}

static void low_memory(int fd) {
    char *map = mapped(fd, 0xf0000, 4 * PAGE, MAP_SHARED);
    if (map != MAP_FAILED)
        vm_records("devmem-rom", map, 4 * PAGE, 0xf0000, 0);
    map = mapped(fd, 0x2000, 4 * PAGE, MAP_SHARED);
    if (map != MAP_FAILED)
        vm_records("devmem-lowram", map, 4 * PAGE, 0x2000, 0);
}

static void map_at(const char *name, void *place, int prot, int flags, int fd, u64 offset) {
    void *map = mmap(place, PAGE, prot, flags, fd, offset);
    answer(name, "mmap", map == MAP_FAILED ? -1 : 0);
}

static void overlaps(int fd, u64 bar) {
    char *one = mapped(fd, bar, 4 * PAGE, MAP_SHARED), *two = mapped(fd, bar + PAGE, 4 * PAGE, MAP_SHARED);
    if (one == MAP_FAILED || two == MAP_FAILED)
        return;
    touch_write("overlap-write-a+0x1000", one, PAGE, 4, 0xabcd0123, bar, NULL);
    touch_read("overlap-read-b+0", two, 0, 4, bar + PAGE, "same physical word through a second overlapping mapping");
    map_at("MAP_FIXED-over-devmem", one + PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    touch_read("after-MAP_FIXED-anon", one, PAGE, 4, bar, "anon page");
    map_at("MAP_FIXED-devmem-over-anon", one + PAGE, RW, MAP_SHARED | MAP_FIXED, fd, bar + PAGE);
    touch_read("after-MAP_FIXED-devmem", one, PAGE, 4, bar, NULL);
    map_at("MAP_FIXED-forbidden-over-existing", one, PROT_READ, MAP_SHARED | MAP_FIXED, fd, 0x200000);
    touch_read("after-failed-MAP_FIXED", one, 0, 4, bar, "was the old mapping destroyed by the failed MAP_FIXED?");
    map_at("MAP_FIXED_NOREPLACE", two, PROT_READ, MAP_SHARED | MAP_FIXED_NOREPLACE, fd, bar);
    munmap(one, 4 * PAGE);
    IN_CHILD(*(volatile u32 *)(two + 0x20) = 0x600df00d);
    touch_read("fork-child-wrote-shared", two, 0x20, 4, bar + PAGE,
               "child wrote 0x600df00d through inherited mapping");
    munmap(two, 4 * PAGE);
}

static void private_first_page(int fd, u64 bar) {
    char *map = mapped(fd, bar, 2 * PAGE, MAP_PRIVATE);
    if (map == MAP_FAILED)
        return;
    touch_write("private-write", map, 0x30, 4, 0x55aa55aa, bar, "COW");
    smaps_record("private-smaps", map);
    map_and_touch("private-write-visible-in-phys?", fd, DEVMEM, bar, PAGE, PROT_READ, MAP_SHARED, 0);
    fork_record("fork-with-COWed-first-page-of-private-map", "first page of a MAP_PRIVATE /dev/mem mapping was COWed");
    touch_read("private-after-child-write", map, 0x30, 4, bar, NULL);
    answer("private-madvise-DONTNEED", "madvise", madvise(map, PAGE, MADV_DONTNEED));
    touch_read("private-after-DONTNEED", map, 0x30, 4, bar, NULL);
    munmap(map, 2 * PAGE);
    fork_record("fork-after-unmapping-COWed-private-map", NULL);
}

static void private_second_page(int fd, u64 bar) {
    char *map = mapped(fd, bar, 2 * PAGE, MAP_PRIVATE);
    if (map == MAP_FAILED)
        return;
    fork_record("fork-with-untouched-private-map", NULL);
    touch_write("private-write-2nd-page", map, 0x1030, 4, 0x55aa55aa, bar, "COW of second page only");
    fork_record("fork-with-COWed-second-page-of-private-map", NULL);
    IN_CHILD(*(volatile u32 *)(map + 0x1030) = 1);
    touch_read("private-2nd-page-after-child-write", map, 0x1030, 4, bar, "child wrote 1 to its own copy");
    munmap(map, 2 * PAGE);
}

static void closed_descriptor(u64 bar) {
    int fd = open(DEVMEM, O_RDWR);
    char *map = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, bar);
    close(fd);
    if (map != MAP_FAILED)
        touch_read("map-survives-close", map, 0, 4, bar, NULL);
    unmap(map, PAGE);
}

static void without_devmem(const struct pci_device *device) {
    int fd = open(sysfs_of(device, "resource2"), O_RDWR);
    map_record("vmops-sysfs-map", fd, "resource2", 0, 8 * PAGE, RW, MAP_SHARED);
    if (fd >= 0)
        close(fd);
}

void phase_vm_ops(void) {
    phase = "vm-ops";
    load_targets();
    struct pci_device *device = find_pci(0x1af4, 0x1110);
    if (!has_memory_bar(device, 2))
        return;
    u64 bar = device->bars[2].start;
    int fd = open(DEVMEM, O_RDWR);
    file_pages(fd, bar);
    not_for_children(fd, bar);
    if (fd < 0) {
        without_devmem(device);
        return;
    }
    shared_memory(fd, device, bar);
    registers(fd);
    low_memory(fd);
    overlaps(fd, bar);
    private_first_page(fd, bar);
    private_second_page(fd, bar);
    closed_descriptor(bar);
    close(fd);
}
