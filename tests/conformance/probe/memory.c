/* Phases nvdimm, vmem and dimm: memory that comes and goes. */
#include "child.h"

#define BLOCKS "/sys/devices/system/memory"
#define MEGABYTES(count) ((u64)(count) << 20)

static int fd;

void blocks_snapshot(const char *tag) {
    static const char format[] =
        "(ls -la " BLOCKS "; for f in " BLOCKS "/*; do [ -f $f ] && echo \"== $f: $(cat $f 2>&1)\"; done; "
        "for d in " BLOCKS "/memory*; do echo \"$d: $(for f in state online removable phys_index phys_device "
        "valid_zones; do echo -n \"$f=$(cat $d/$f 2>&1) \"; done)\"; done; ls -la " BLOCKS "/memory0; "
        "head -5 /proc/meminfo; grep -E '^Node|start_pfn|present|spanned' /proc/zoneinfo) > %s/memory-%s.txt 2>&1";
    shell(form(format, out_folder, tag));
    snapshot("/proc/iomem", form("iomem-%s.txt", tag));
}

static void look(const char *tag) {
    blocks_snapshot(tag);
    load_iomem();
}

static void read_here(const char *name, u64 address) {
    read_at(name, fd, DEVMEM, address, 16);
}

static void map_here(const char *name, u64 address, u64 length) {
    map_and_touch(name, fd, DEVMEM, address, length, PROT_READ, MAP_SHARED, 0);
}

static u64 number_behind(const char *said, const char *device, const char *field) {
    const char *at = strstr(said, device);
    at = at ? strstr(at, field) : NULL;
    return at ? strtoull(at + strlen(field), NULL, 0) : 0;
}

/* -- nvdimm */

static void after_pmem(u64 start, void *map) {
    snapshot("/proc/iomem", "iomem-nd-1-pmem.txt");
    load_iomem();
    if (map != MAP_FAILED)
        touch_read("pmem touch-old", map, 0, 4, start, NULL);
    fork_record("pmem fork", NULL);
    if (start) {
        read_here("pmem nvd0 pread", start - MEGABYTES(256));
        map_here("pmem nvd0 mmap", start - MEGABYTES(256), PAGE);
        read_here("pmem pread", start);
        map_here("pmem mmap", start, PAGE);
    }
    shell_record("ndctl-list", "ndctl list -RNDv 2>&1 | head -80");
    kcore_records("nd-pmem");
}

static void dax_maps(void) {
    static const char path[] = "/dev/dax0.0";
    const size_t huge = MEGABYTES(2);
    int dax = open_record("open-dax0.0", path, O_RDWR, "root");
    if (dax < 0)
        return;
    void *map = map_record("dax-mmap-2M", dax, path, 0, huge, RW, MAP_SHARED);
    if (map != MAP_FAILED)
        touch_write("dax-write", map, 0, 4, 0x11223344, 0, NULL);
    unmap(map, huge);
    map_record("dax-mmap-4K", dax, path, 0, PAGE, PROT_READ, MAP_SHARED);
    map_record("dax-mmap-private", dax, path, 0, huge, PROT_READ, MAP_PRIVATE);
    close(dax);
}

static void as_devdax(u64 start) {
    shell_record("ndctl-devdax", "ndctl create-namespace -f -e namespace0.0 -m devdax -a 2097152 2>&1 | head -40; "
                                 "modprobe device_dax; modprobe dax_pmem; sleep 1; ls -la /dev/dax* 2>&1; "
                                 "daxctl list 2>&1");
    snapshot("/proc/iomem", "iomem-nd-2-devdax.txt");
    load_iomem();
    if (start) {
        read_here("devdax pread", start);
        map_here("devdax mmap", start, PAGE);
        read_here("devdax pread+64M", start + MEGABYTES(64));
    }
    dax_maps();
}

static void as_system_ram(u64 start) {
    shell_record("daxctl-system-ram", "echo offline > " BLOCKS "/auto_online_blocks; daxctl reconfigure-device "
                                      "-m system-ram -N dax0.0 2>&1 | head -30; sleep 1; daxctl list 2>&1");
    snapshot("/proc/iomem", "iomem-nd-3-kmem.txt");
    load_iomem();
    if (start) {
        read_here("kmem pread+0", start);
        read_here("kmem pread+128M", start + MEGABYTES(128));
        read_here("kmem pread+200M", start + MEGABYTES(200));
        map_here("kmem mmap+128M", start + MEGABYTES(128), PAGE);
    }
    blocks_snapshot("nd-kmem");
}

void phase_nvdimm(void) {
    static char said[8192];
    void *map = MAP_FAILED;
    phase = "nvdimm";
    load_targets();
    fd = open(DEVMEM, O_RDWR);
    monitor("info memory-devices", said, sizeof said);
    u64 start = number_behind(said, "\"nvd1\"", "addr: ");
    begin("nvd1-addr", "note");
    result(0, 0);
    hex("addr", start);
    end();
    snapshot("/proc/iomem", "iomem-nd-0.txt");
    if (start) {
        read_here("pre-driver pread", start);
        map_here("pre-driver mmap", start, PAGE);
        map = map_record("pre-driver map", fd, DEVMEM, start, 16 * PAGE, RW, MAP_SHARED);
        if (map != MAP_FAILED)
            touch_read("pre-driver touch", map, 0, 4, start, NULL);
    }
    shell_record("modprobe-nfit", "modprobe nfit; modprobe nd_pmem; sleep 2; ls /sys/bus/nd/devices; "
                                  "ls -la /dev/pmem* 2>&1");
    after_pmem(start, map);
    as_devdax(start);
    as_system_ram(start);
    unmap(map, 16 * PAGE);
    shell_record("blkdev-pmem1", "head -c 16 /dev/pmem1 2>&1 | hexdump -C; ls -la /sys/bus/nd/devices/");
    close(fd);
}

/* -- vmem */

static const char online_all[] = "for m in " BLOCKS "/memory*; do [ $(cat $m/state) = offline ] && "
                                 "echo %s > $m/state; done; grep -H . " BLOCKS "/memory*/state";

/* Mappings from before the driver is loaded: plugged, unplugged, and across the start of the region. */
static char *plugged, *unplugged, *across;
static struct child child;

static void before_driver(void) {
    load_iomem();
    plugged = map_record("premodprobe-map-16M", fd, DEVMEM, virtio_mem_start, MEGABYTES(16), RW, MAP_SHARED);
    if (plugged != MAP_FAILED) {
        touch_read("premodprobe-touch-0", plugged, 0, 4, virtio_mem_start, "plugged by host, driver not loaded");
        touch_write("premodprobe-write", plugged, 0x1000, 4, 0xfeedface, virtio_mem_start, NULL);
        touch_read("premodprobe-readback", plugged, 0x1000, 4, virtio_mem_start, NULL);
        child_start(&child, plugged, 1);
        child_touch(&child, "premodprobe-child", NULL);
    }
    u64 far = virtio_mem_start + MEGABYTES(900), edge = virtio_mem_start - 2 * PAGE;
    unplugged = map_record("premodprobe-map-900M(unplugged)", fd, DEVMEM, far, MEGABYTES(64), PROT_READ, MAP_SHARED);
    if (unplugged != MAP_FAILED)
        touch_read("premodprobe-touch-900M(unplugged)", unplugged, 0, 4, far, NULL);
    across =
        map_record("premodprobe-map-span-start(-8K..+8K)", fd, DEVMEM, edge, 4 * PAGE, PROT_READ, MAP_SHARED);
    if (across != MAP_FAILED) {
        touch_read("premodprobe-span-before", across, 0, 4, edge, NULL);
        touch_read("premodprobe-span-inside", across, 2 * PAGE, 4, edge, NULL);
    }
    read_here("premodprobe-pread", virtio_mem_start);
}

static void driver_loaded(void) {
    u64 edge = virtio_mem_start - 2 * PAGE;
    shell_record("modprobe-virtio_mem", "modprobe virtio_pci; modprobe virtio_mem");
    settle(3000);
    look("vmem-1-loaded-offline");
    if (plugged != MAP_FAILED) {
        touch_read("loaded-touch-old", plugged, 0, 4, virtio_mem_start, "driver added parent resource + System RAM");
        touch_read("loaded-touch-old-1000", plugged, 0x1000, 4, virtio_mem_start, NULL);
        child_touch(&child, "loaded-child", NULL);
    }
    if (unplugged != MAP_FAILED)
        touch_read("loaded-touch-old-900M", unplugged, 0, 4, virtio_mem_start + MEGABYTES(900),
                   "unplugged part of the region");
    if (across != MAP_FAILED) {
        touch_read("loaded-span-before", across, 0, 4, edge, "page before the virtio-mem region, same VMA");
        touch_read("loaded-span-inside", across, 2 * PAGE, 4, edge, NULL);
    }
    fork_record("loaded-fork", NULL);
    matrix("matrix-vmem-loaded", 0);
    phase = "vmem";
    kcore_records("vmem-loaded");
}

static void online_records(void) {
    u64 start = virtio_mem_start, half = virtio_mem_start + MEGABYTES(512), last = virtio_mem_end + 1 - PAGE;
    if (!start)
        return;
    read_here("online pread-plugged", start);
    read_here("online pread-plugged+200M", start + MEGABYTES(200));
    read_here("online pread-unplugged-512M", half);
    map_here("online mmap-plugged", start, PAGE);
    map_here("online mmap-unplugged", half, PAGE);
    map_here("online mmap-past-end", virtio_mem_end + 1, PAGE);
    map_here("online mmap-cross-end", last, 2 * PAGE);
    write_at("online pwrite-plugged", fd, DEVMEM, start + 64, "\0\0\0\0", 4);
    write_at("online pwrite-unplugged", fd, DEVMEM, half, "\0\0\0\0", 4);
}

static void go_online(void) {
    shell_record("online-movable", form(online_all, "online_movable"));
    write_file("auto-online", BLOCKS "/auto_online_blocks", "online_movable");
    settle(2500);
    look("vmem-2-online");
    monitor_record("memory-devices", "info memory-devices");
    online_records();
    matrix("matrix-vmem-online", 1);
    phase = "vmem";
    kcore_records("vmem-online");
}

static void request(const char *size, int milliseconds, const char *tag) {
    monitor_record(form("requested-size-%s", size),
                   form("qom-set /machine/peripheral/vm0 requested-size %s", size));
    settle(milliseconds);
    monitor_record("memory-devices", "info memory-devices");
    look(tag);
}

static void grow_and_shrink(void) {
    u64 start = virtio_mem_start, half = virtio_mem_start + MEGABYTES(512);
    request("640M", 4000, "vmem-3-640M");
    if (start) {
        read_here("640M pread+512M", half);
        read_here("640M pread+700M", start + MEGABYTES(700));
    }
    request("64M", 6000, "vmem-4-64M");
    if (start) {
        read_here("64M pread+512M", half);
        map_here("64M mmap+512M", half, PAGE);
        read_here("64M pread+0", start);
    }
}

static void go_offline(void) {
    shell_record("offline-vmem-block",
                 "b=memory$(( 0x$(grep -m1 -F \"System RAM (virtio_mem)\" /proc/iomem | tr -d \" \" | cut -d- -f1) / "
                 "0x$(cat " BLOCKS "/block_size_bytes) )); echo $b; cat " BLOCKS "/$b/state; "
                 "echo offline > " BLOCKS "/$b/state; echo rc=$?; cat " BLOCKS "/$b/state; "
                 "cat " BLOCKS "/$b/valid_zones");
    look("vmem-5-offlined");
    if (!virtio_mem_start)
        return;
    read_here("offlined pread+0", virtio_mem_start);
    map_here("offlined mmap+0", virtio_mem_start, PAGE);
}

static void boot_blocks(void) {
    write_file("offline-memory0", BLOCKS "/memory0/state", "offline");
    write_file("offline-memory3", BLOCKS "/memory3/state", "offline");
    write_file("offline-memory2", BLOCKS "/memory2/state", "offline");
    write_file("online-already-online", BLOCKS "/memory0/state", "online");
    write_file("state-garbage", BLOCKS "/memory0/state", "zzz");
    write_file("online-file-0", BLOCKS "/memory0/online", "0");
    AS_USER({
        write_file("offline-as-user", BLOCKS "/memory1/state", "offline");
        read_file("state-as-user", BLOCKS "/memory1/state");
    });
    blocks_snapshot("vmem-6-after-offline-attempts");
    load_targets();
    read_here("offline-boot-block pread", 0x18000000);
    read_here("offline-boot-block pread2", 0x10000000);
    map_here("offline-boot-block mmap", 0x18000000, PAGE);
    shell_record("re-online", form(online_all, "online"));
}

static void unload_empty(void) {
    u64 start = virtio_mem_start, half = virtio_mem_start + MEGABYTES(512);
    request("0", 5000, "vmem-7-0");
    if (start) {
        read_here("0M pread+0", start);
        map_here("0M mmap+0", start, PAGE);
    }
    shell_record("rmmod-virtio_mem-when-empty", "rmmod virtio_mem; dmesg | tail -4");
    look("vmem-8-rmmod");
    if (!start)
        return;
    read_here("rmmod pread+0", start);
    read_here("rmmod pread+512M", half);
    map_here("rmmod mmap+0", start, PAGE);
    map_here("rmmod mmap+512M", half, PAGE);
    if (plugged != MAP_FAILED)
        touch_read("rmmod-touch-old", plugged, 0, 4, start, NULL);
}

static void unload_with_memory(void) {
    u64 start = virtio_mem_start, half = virtio_mem_start + MEGABYTES(512);
    shell_record("modprobe-virtio_mem-again", "modprobe virtio_mem");
    monitor_record("requested-size-272M", "qom-set /machine/peripheral/vm0 requested-size 272M");
    settle(4000);
    look("vmem-9-reloaded");
    if (start)
        read_here("reloaded pread+0", start);
    shell_record("rmmod-virtio_mem-with-memory", "rmmod virtio_mem; dmesg | tail -6");
    look("vmem-a-rmmod-with-memory");
    if (start) {
        read_here("rmmod2 pread+0", start);
        read_here("rmmod2 pread+264M", start + MEGABYTES(264));
        read_here("rmmod2 pread+512M", half);
        map_here("rmmod2 mmap+512M", half, PAGE);
    }
    shell_record("modprobe-virtio_mem-third", "modprobe virtio_mem; sleep 1; dmesg | tail -5");
    blocks_snapshot("vmem-b-third");
}

void phase_vmem(void) {
    phase = "vmem";
    plugged = unplugged = across = MAP_FAILED;
    fd = open(DEVMEM, O_RDWR);
    blocks_snapshot("vmem-0-before");
    monitor_record("memory-devices", "info memory-devices");
    monitor_record("memory_size_summary", "info memory_size_summary");
    read_file("block_size_bytes", BLOCKS "/block_size_bytes");
    read_file("auto_online_blocks", BLOCKS "/auto_online_blocks");
    if (virtio_mem_start)
        before_driver();
    driver_loaded();
    go_online();
    grow_and_shrink();
    go_offline();
    boot_blocks();
    unload_empty();
    unload_with_memory();
    if (plugged != MAP_FAILED)
        child_end(&child);
    unmap(plugged, MEGABYTES(16));
    unmap(unplugged, MEGABYTES(64));
    unmap(across, 4 * PAGE);
    close(fd);
}

/* -- dimm */

static u64 dimm_address(void) {
    static char said[8192];
    monitor("info memory-devices", said, sizeof said);
    u64 address = number_behind(said, "\"dimm0\"", "addr: ");
    begin("dimm-addr", "qemu_monitor");
    result(0, 0);
    hex("addr", address);
    data_text(said);
    end();
    return address;
}

static u64 last_high_ram(void) {
    u64 found = 0;
    for (int i = 0; i < resource_count; i++)
        if (!strcmp(resources[i].name, "System RAM") && resources[i].start >= 0x100000000ULL)
            found = resources[i].start;
    return found;
}

static void dimm_stage(const char *name, u64 address) {
    load_iomem();
    read_here(form("%s pread", name), address);
    map_here(form("%s mmap", name), address, PAGE);
}

void phase_dimm(void) {
    phase = "dimm";
    fd = open(DEVMEM, O_RDWR);
    write_file("auto-offline", BLOCKS "/auto_online_blocks", "offline");
    monitor_record("object_add", "object_add memory-backend-ram,id=dm0,size=256M");
    monitor_record("info-memory-devices-before", "info memory-devices");
    monitor_record("device_add", "device_add pc-dimm,id=dimm0,memdev=dm0");
    settle(3000);
    u64 address = dimm_address();
    look("dimm-1-added");
    if (!address)
        address = last_high_ram();
    if (address) {
        const char *block = form("%llu", (unsigned long long)(address >> 27));
        dimm_stage("dimm-offline", address);
        shell_record("dimm-online", form(online_all, "online_movable"));
        blocks_snapshot("dimm-2-online");
        dimm_stage("dimm-online", address);
        shell_record("dimm-offline-one-block",
                     form("b=%s; echo offline > " BLOCKS "/memory$b/state; echo rc=$?; cat " BLOCKS "/memory$b/state",
                          block));
        blocks_snapshot("dimm-3-one-offline");
        dimm_stage("dimm-block-offlined", address);
        monitor_record("device_del", "device_del dimm0");
        settle(3000);
        blocks_snapshot("dimm-4-deleted");
        dimm_stage("dimm-deleted", address);
        monitor_record("info-memory-devices-after", "info memory-devices");
    }
    close(fd);
}
