/* Phases revoke-*: a driver takes a BAR that is mapped in every way there is, and lets it go again. */
#include "child.h"
#include <sys/ioctl.h>

static struct pci_device device;
static u64 start, length; /* the BAR, in whole pages */
static int bar;
static char resource_path[256], proc_path[128];
static const char *driver;
static int fd, synced, resource, proc;

enum { FULL, PAGE_SYNC, PRIVATE, SYSFS, SYSFS_PRIVATE, PROC, MAPS };
static const char *const map_names[MAPS] = {"devmem-full", "devmem-1page-R-sync", "devmem-private",
                                            "sysfs-full",  "sysfs-private",       "procbuspci"};
static char *maps[MAPS];
static char *second, *third; /* two more of the whole BAR, for phases that take them apart */
static char *span;           /* and 64 KiB more on either side */
static u64 span_start, span_length;
static const u64 margin = 0x10000;

static u64 at_least(u64 pages) {
    return length < pages * PAGE ? pages * PAGE : length;
}

static u64 size_of(int map) {
    return map == PAGE_SYNC || map == SYSFS_PRIVATE || map == PROC ? PAGE : length;
}

static void open_all(void) {
    fd = open(DEVMEM, O_RDWR);
    synced = open(DEVMEM, O_RDWR | O_SYNC);
    resource = open(resource_path, O_RDWR);
    maps[FULL] = map_record("devmem-full", fd, DEVMEM, start, length, RW, MAP_SHARED);
    second = map_record("devmem-full2", fd, DEVMEM, start, at_least(2), RW, MAP_SHARED);
    third = map_record("devmem-full3", fd, DEVMEM, start, at_least(4), RW, MAP_SHARED);
    maps[PAGE_SYNC] =
        map_record("devmem-1page-R-sync", synced, DEVMEM " O_SYNC", start, PAGE, PROT_READ, MAP_SHARED);
    maps[PRIVATE] = map_record("devmem-private", fd, DEVMEM, start, length, RW, MAP_PRIVATE);
    maps[SYSFS] = map_record("sysfs-full", resource, resource_path, 0, length, RW, MAP_SHARED);
    maps[SYSFS_PRIVATE] = map_record("sysfs-private", resource, resource_path, 0, PAGE, RW, MAP_PRIVATE);
    span_start = start - margin;
    span_length = length + 2 * margin;
    span = map_record("devmem-span(+-64K)", fd, DEVMEM, span_start, span_length, PROT_READ, MAP_SHARED);
    proc = open(proc_path, O_RDWR);
    if (proc >= 0)
        ioctl(proc, PCIIOC_MMAP_IS_MEM_, 0);
    maps[PROC] = map_record("procbuspci-map", proc, proc_path, start, PAGE, PROT_READ, MAP_SHARED);
}

static void touch_all(const char *when) {
    for (int i = 0; i < MAPS; i++)
        if (maps[i] != MAP_FAILED)
            touch_read(form("%s %s", when, map_names[i]), maps[i], 8, 4, start, NULL);
    if (span == MAP_FAILED)
        return;
    touch_read(form("%s span-first-page(outside BAR)", when), span, 0, 4, span_start, NULL);
    touch_read(form("%s span-BAR-page", when), span, margin, 4, span_start, NULL);
    touch_read(form("%s span-after-BAR", when), span, margin + length, 4, span_start, NULL);
}

static void before(struct child *handling, struct child *dying) {
    touch_all("before");
    if (maps[FULL] != MAP_FAILED) {
        child_start(handling, maps[FULL] + 8, 1);
        child_start(dying, maps[FULL] + 8, 0);
        child_touch(handling, "before child(handler)", NULL);
        child_touch(dying, "before child(no handler)", NULL);
    }
    fork_record("before fork", NULL);
    if (maps[PRIVATE] != MAP_FAILED)
        touch_write("before private-COW-write", maps[PRIVATE], 0x20, 4, 0xdeadbeef, start, "private page COWed");
    if (maps[SYSFS_PRIVATE] != MAP_FAILED)
        touch_write("before sysfs-private-COW-write", maps[SYSFS_PRIVATE], 0x20, 4, 0xdeadbeef, start,
                    "private page COWed");
    read_at("before", fd, DEVMEM, start + 8, 4);
    fork_record("before fork-with-COWed-private", NULL);
}

static void load_module(const char *module) {
    shell_record("modprobe", form("modprobe %s", module));
    settle(1500);
    discard_kmsg();
    driver_state("state-bound", &device, bar);
    snapshot("/proc/iomem", form("iomem-%s-bound.txt", phase));
}

static void straddling_load(void) {
    volatile u64 word = 0;
    begin("bound unaligned-8-byte-read-straddling-into-BAR", "touch_read");
    hex("phys", start - 4);
    integer("width", 8);
    int signo = TRY(word = *(volatile u64 *)(span + margin - 4));
    result(signo ? -1 : 0, 0);
    if (signo) {
        signal_field(span, span_start);
    } else {
        u64 loaded = word;
        data_bytes(&loaded, sizeof loaded);
    }
    note("si_addr tells which page faulted");
    end();
}

static void self_read(const char *name, int memory, char *place, int shown) {
    unsigned char bytes[16];
    ssize_t got = pread(memory, bytes, sizeof bytes, (off_t)place);
    begin(name, "pread");
    answered(got);
    if (got > 0 && shown)
        data_bytes(bytes, got);
    end();
}

static void straddling_copies(void) {
    int ends[2];
    char *edge = span + margin - 8;
    straddling_load();
    (void)!pipe(ends);
    answer("bound write(pipe, span straddling into BAR, 16)", "write", write(ends[1], edge, 16));
    close(ends[0]);
    close(ends[1]);
    int file = open(form("%s/od2", temporary), O_CREAT | O_RDWR | O_TRUNC, 0600);
    answer("bound write(tmpfs, span straddling into BAR, 16)", "write", write(file, edge, 16));
    close(file);
    int memory = open("/proc/self/mem", O_RDONLY);
    self_read("bound pread(/proc/self/mem, span straddling, 16)", memory, edge, 1);
    self_read("bound pread(/proc/self/mem, inside revoked BAR, 16)", memory, span + margin, 1);
    self_read("bound pread(/proc/self/mem, span outside BAR, 16)", memory, span, 0);
    close(memory);
}

static void touch_bound(void) {
    touch_all("bound");
    if (maps[FULL] != MAP_FAILED) {
        volatile u32 old = 0;
        touch_read("bound again-devmem-full", maps[FULL], 8, 4, start, "second touch");
        TRY(old = *(volatile u32 *)(maps[FULL] + 8));
        touch_write("bound write-devmem-full", maps[FULL], 8, 4, old, start, "write access");
        touch_read("bound devmem-full-lastpage", maps[FULL], length - PAGE, 4, start, NULL);
    }
    if (span != MAP_FAILED)
        straddling_copies();
    if (maps[PRIVATE] != MAP_FAILED)
        touch_read("bound private-COWed-page", maps[PRIVATE], 0x20, 4, start, "was COWed before binding");
    if (maps[SYSFS_PRIVATE] != MAP_FAILED)
        touch_read("bound sysfs-private-COWed-page", maps[SYSFS_PRIVATE], 0x20, 4, start, NULL);
}

static void unmap_private(void) {
    for (int i = PRIVATE; i <= SYSFS_PRIVATE; i += SYSFS_PRIVATE - PRIVATE) {
        unmap(maps[i], size_of(i));
        maps[i] = MAP_FAILED;
    }
}

static void map_and_touch_resource(const char *kind, int descriptor) {
    char *map = map_record(form("bound sysfs-mmap-%s", kind), descriptor, resource_path, 0, PAGE, PROT_READ, MAP_SHARED);
    if (map != MAP_FAILED)
        touch_read(form("bound sysfs-touch-%s", kind), map, 8, 4, start, NULL);
    unmap(map, PAGE);
}

static int new_uses(void) {
    static const char old_fd[] = "/dev/mem fd from before";
    int new = open_record("bound open-devmem", DEVMEM, O_RDWR, "root");
    map_and_touch("bound new-mmap-page", new, "/dev/mem new fd", start, PAGE, PROT_READ, MAP_SHARED, 0);
    map_and_touch("bound old-fd-mmap-page", fd, old_fd, start, PAGE, PROT_READ, MAP_SHARED, 0);
    map_and_touch("bound old-fd-mmap-private", fd, old_fd, start, PAGE, RW, MAP_PRIVATE, 0);
    map_and_touch("bound mmap-span", fd, DEVMEM, span_start, span_length, PROT_READ, MAP_SHARED, 0);
    map_and_touch("bound mmap-page-before", fd, DEVMEM, start - PAGE, PAGE, PROT_READ, MAP_SHARED, 0);
    map_and_touch("bound mmap-page-after", fd, DEVMEM, start + length, PAGE, PROT_READ, MAP_SHARED, 0);
    read_at("bound pread", fd, DEVMEM, start + 8, 4);
    read_at("bound pread-cross-into", fd, DEVMEM, start - 8, 16);
    read_at("bound pread-cross-out", fd, DEVMEM, start + length - 8, 16);
    write_at("bound pwrite", fd, DEVMEM, start + 0x10, "\0\0\0\0", 4);
    int again = open_record("bound open-sysfs-resource", resource_path, O_RDWR, "root");
    map_and_touch_resource("newfd", again);
    if (again >= 0)
        close(again);
    map_and_touch_resource("oldfd", resource);
    unmap(map_record("bound procbuspci-mmap", proc, proc_path, start, PAGE, PROT_READ, MAP_SHARED), PAGE);
    return new;
}

static void take_apart(void) {
    if (maps[FULL] != MAP_FAILED)
        pagemap_record("bound pagemap devmem-full", maps[FULL]);
    if (third != MAP_FAILED)
        remap_records("revoked", third, at_least(4), start);
    if (second == MAP_FAILED)
        return;
    if (length >= 2 * PAGE)
        vm_records("revoked", second, length, start, 0);
    else
        munmap(second, 2 * PAGE);
}

static const char *driver_file(const char *file) {
    return form("/sys/bus/pci/drivers/%s/%s", driver, file);
}

static void bind_or_unbind(const char *name, const char *file) {
    write_file(name, driver_file(file), device.bdf);
    settle(800);
    discard_kmsg();
}

static char *after_unbind(void) {
    driver_state("state-unbound", &device, bar);
    touch_all("unbound");
    map_and_touch("unbound new-mmap-page", fd, DEVMEM, start, PAGE, PROT_READ, MAP_SHARED, 0);
    read_at("unbound pread", fd, DEVMEM, start + 8, 4);
    char *again = map_record("unbound remap-full", fd, DEVMEM, start, length, RW, MAP_SHARED);
    if (again != MAP_FAILED)
        touch_read("unbound touch-remap", again, 8, 4, start, NULL);
    if (maps[FULL] != MAP_FAILED)
        touch_read("unbound old-map-after-remap", maps[FULL], 8, 4, start, NULL);
    char *map = map_record("unbound sysfs-mmap-oldfd", resource, resource_path, 0, PAGE, PROT_READ, MAP_SHARED);
    if (map != MAP_FAILED)
        touch_read("unbound sysfs-touch", map, 8, 4, start, NULL);
    unmap(map, PAGE);
    return again;
}

static void unload(const char *module, char *again) {
    shell_record("rmmod", form("rmmod %s", module));
    settle(500);
    discard_kmsg();
    driver_state("state-rmmod", &device, bar);
    if (again != MAP_FAILED)
        touch_read("rmmod touch-remap", again, 8, 4, start, NULL);
    map_and_touch("rmmod new-mmap-page", fd, DEVMEM, start, PAGE, PROT_READ, MAP_SHARED, 0);
}

static void unmap_all(char *again) {
    if (maps[FULL] != MAP_FAILED) {
        fork_record("rmmod fork before munmap", NULL);
        answer("munmap-revoked", "munmap", munmap(maps[FULL], length));
    }
    for (int i = PAGE_SYNC; i < MAPS; i++)
        unmap(maps[i], size_of(i));
    unmap(span, span_length);
    unmap(again, length);
    fork_record("end fork after munmap of all", NULL);
}

static int choose(unsigned vendor, unsigned id, int number) {
    load_pci();
    load_iomem();
    struct pci_device *found = find_pci(vendor, id);
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
    snprintf(resource_path, sizeof resource_path, "%s", sysfs_of(&device, form("resource%d", bar)));
    snprintf(proc_path, sizeof proc_path, "%s", proc_of(&device));
    return 1;
}

void phase_revoke(const char *name, unsigned vendor, unsigned id, int number, const char *module,
                  const char *of_driver) {
    static char name_of_phase[64];
    struct child handling = {0}, dying = {0};
    snprintf(name_of_phase, sizeof name_of_phase, "revoke-%s", name);
    phase = name_of_phase;
    driver = of_driver;
    if (!choose(vendor, id, number))
        return;
    driver_state("state-before", &device, bar);
    open_all();
    int children = maps[FULL] != MAP_FAILED;
    before(&handling, &dying);
    load_module(module);
    touch_bound();
    if (children) {
        child_touch(&handling, "bound child(handler)", NULL);
        child_touch(&dying, "bound child(no handler)", "default action");
    }
    fork_record("bound fork (process holds revoked mappings incl. private)", NULL);
    unmap_private();
    fork_record("bound fork (process holds only revoked SHARED mappings)", NULL);
    if (maps[FULL] != MAP_FAILED)
        smaps_record("bound smaps devmem-full", maps[FULL]);
    int new = new_uses();
    take_apart();
    write_file("bound bind-already-bound", driver_file("bind"), device.bdf);
    bind_or_unbind("unbind", "unbind");
    char *again = after_unbind();
    write_file("unbound unbind-again", driver_file("unbind"), device.bdf);
    bind_or_unbind("rebind", "bind");
    driver_state("state-rebound", &device, bar);
    if (again != MAP_FAILED)
        touch_read("rebound touch-remap", again, 8, 4, start, "revoked again?");
    unload(module, again);
    unmap_all(again);
    if (children) {
        child_end(&handling);
        child_end(&dying);
    }
    const int all[] = {fd, synced, resource, new, proc};
    for (size_t i = 0; i < COUNT(all); i++)
        if (all[i] >= 0)
            close(all[i]);
}
