/* The phases in their order: each finds the machine as those before it left it. */
#include "probe.h"

static const char LOCKDOWN[] = "/sys/kernel/security/lockdown";

/* -- lockdown-runtime: descriptors and mappings that are there when the level is raised */

static struct {
    int devmem, resource, config, kcore, port, io;
    char *devmem_map, *sysfs_map;
} held;
static char resource_path[256];

static void self_read(const char *name) {
    unsigned char bytes[4];
    int memory = open("/proc/self/mem", O_RDWR);
    answer(name, "pread", pread(memory, bytes, sizeof bytes, (off_t)held.devmem_map));
    close(memory);
}

#define AT_LEVEL(text) form("%s: " text, level)

static void held_memory(const char *level, u64 bar) {
    static const char what[] = "/dev/mem held";
    if (held.devmem_map != MAP_FAILED) {
        touch_read(AT_LEVEL("touch old devmem map"), held.devmem_map, 0, 4, bar, NULL);
        touch_write(AT_LEVEL("write old devmem map"), held.devmem_map, 4, 4, 0x12345678, bar, NULL);
    }
    if (held.sysfs_map != MAP_FAILED)
        touch_read(AT_LEVEL("touch old sysfs map"), held.sysfs_map, 0, 4, bar, NULL);
    read_at(AT_LEVEL("pread held devmem fd"), held.devmem, what, 0xf0000, 16);
    write_at(AT_LEVEL("pwrite held devmem fd"), held.devmem, what, 0xb8000, "\0\0\0\0", 4);
    map_and_touch(AT_LEVEL("mmap held devmem fd"), held.devmem, what, bar, PAGE, RW, MAP_SHARED, 0);
    map_and_touch(AT_LEVEL("mmap held devmem fd RAM"), held.devmem, what, 0x200000, PAGE, PROT_READ, MAP_SHARED, 0);
    unmap(map_record(AT_LEVEL("mmap held resource fd"), held.resource, resource_path, 0, PAGE, PROT_READ, MAP_SHARED),
          PAGE);
}

static void held_files(const char *level) {
    unsigned char bytes[64];
    open_record(AT_LEVEL("open devmem"), DEVMEM, O_RDONLY, "root");
    int fd = open_record(AT_LEVEL("open resource"), resource_path, O_RDWR, "root");
    if (fd >= 0)
        close(fd);
    answer(AT_LEVEL("pread held config fd"), "pread", pread(held.config, bytes, 64, 0));
    answer(AT_LEVEL("pwrite held config fd"), "pwrite", pwrite(held.config, bytes + 4, 2, 4));
    answer(AT_LEVEL("pread held kcore fd"), "pread", pread(held.kcore, bytes, 64, 0));
    open_record(AT_LEVEL("open kcore"), kcore_path(), O_RDONLY, "root");
    answer(AT_LEVEL("pread held /dev/port fd 0x70"), "pread", pread(held.port, bytes, 1, 0x71));
    answer(AT_LEVEL("pread held IO resource fd"), "pread", pread(held.io, bytes, 4, 0));
    answer(AT_LEVEL("pwrite held IO resource fd"), "pwrite", pwrite(held.io, "\0\0\0\0", 4, 0));
    self_read(AT_LEVEL("ptrace-ish pread /proc/self/mem of devmem map"));
}

static int hold(const struct pci_device *edu, const struct pci_device *network) {
    u64 bar = edu->bars[0].start;
    snprintf(resource_path, sizeof resource_path, "%s", sysfs_of(edu, "resource0"));
    held.devmem = open(DEVMEM, O_RDWR);
    held.resource = open(resource_path, O_RDWR);
    held.config = open(sysfs_of(edu, "config"), O_RDWR);
    held.kcore = open(kcore_path(), O_RDONLY);
    held.port = open("/dev/port", O_RDWR);
    held.io = open(sysfs_of(network, "resource1"), O_RDWR);
    read_file("lockdown-before", LOCKDOWN);
    if (held.devmem < 0) {
        begin("skip", "skip");
        result(-1, EPERM);
        end();
        return 0;
    }
    held.devmem_map = map_record("before devmem-map", held.devmem, DEVMEM, bar, PAGE, RW, MAP_SHARED);
    held.sysfs_map = map_record("before sysfs-map", held.resource, resource_path, 0, PAGE, RW, MAP_SHARED);
    return 1;
}

void phase_lockdown(void) {
    static const char *const levels[] = {"integrity", "confidentiality"};
    phase = "lockdown-runtime";
    load_pci();
    load_iomem();
    struct pci_device *edu = find_pci(0x1234, 0x11e8), *network = find_pci(0x8086, 0x100e);
    if (!has_memory_bar(edu, 0) || !network || !hold(edu, network))
        return;
    for (size_t i = 0; i < COUNT(levels); i++) {
        write_file(form("raise-to-%s", levels[i]), LOCKDOWN, levels[i]);
        read_file("lockdown-now", LOCKDOWN);
        held_memory(levels[i], edu->bars[0].start);
        held_files(levels[i]);
    }
    write_file("lower-to-none", LOCKDOWN, "none");
    write_file("lower-to-integrity", LOCKDOWN, "integrity");
    write_file("garbage", LOCKDOWN, "zzz");
    shell_record("tools-under-lockdown",
                 "busybox devmem 0xf0000; dmidecode --no-sysfs 2>&1 | head -5; dmidecode 2>&1 | head -5; "
                 "lspci 2>&1 | head -3; setpci -s 00:05.0 COMMAND.W 2>&1; setpci -s 00:05.0 COMMAND.W=103 2>&1; "
                 "head -c 16 /dev/mem 2>&1");
}

/* -- all of them */

static const char *chosen = "";

static int wanted(const char *word) {
    return !*chosen || strstr(chosen, word);
}

static void revoke_phases(void) {
    phase_revoke("e1000", 0x8086, 0x100e, 0, "e1000", "e1000");
    phase_revoke("nvme", 0x1b36, 0x10, 0, "nvme", "nvme");
    phase_revoke("ahci-bar5", 0x8086, 0x2922, 5, "ahci", "ahci");
    phase_revoke("xhci", 0x1b36, 0xd, 0, "xhci_pci", "xhci_hcd");
    phase_revoke("hda", 0x8086, 0x2668, 0, "snd_hda_intel", "snd_hda_intel");
    phase_revoke("vga", 0x1234, 0x1111, 0, "bochs", "bochs-drm");
    phase_cross_write();
}

static void remove_phases(void) {
    phase_remove("ivshmem", 0x1af4, 0x1110, 2, NULL, NULL);
    phase_remove("edu", 0x1234, 0x11e8, 0, NULL, NULL);
    phase_remove("e1000e-hotplug", 0x8086, 0x10d3, 0, "device_del hp0", "device_add e1000e,id=hp0,bus=rp1");
    shell_record("modprobe-e1000", "modprobe e1000; sleep 1");
    phase_remove("e1000-bound", 0x8086, 0x100e, 0, NULL, NULL);
}

static void all_drivers(void) {
    shell_record("load-all", "for m in e1000 nvme ahci xhci_pci snd_hda_intel i2c_i801 virtio_pci virtio_rng bochs; "
                             "do modprobe $m; done; sleep 2");
    phase_sysfs("sysfs-bound");
    matrix("matrix-all-drivers", 0);
}

static void all_phases(void) {
    phase_env();
    if (wanted("open"))
        phase_open();
    if (wanted("fd"))
        phase_fd();
    if (wanted("matrix"))
        matrix("matrix-boot", 1);
    if (wanted("lowram"))
        phase_lowram();
    if (wanted("mmapargs"))
        phase_mmap_args();
    if (wanted("vmops"))
        phase_vm_ops();
    if (wanted("sysfs"))
        phase_sysfs("sysfs");
    if (wanted("sysfsops"))
        phase_sysfs_ops();
    if (wanted("bind"))
        phase_bind();
    if (wanted("nd"))
        phase_nvdimm();
    if (wanted("vmem"))
        phase_vmem();
    if (wanted("revoke"))
        revoke_phases();
    if (wanted("remove"))
        remove_phases();
    if (wanted("dimm"))
        phase_dimm();
    if (wanted("all-drivers"))
        all_drivers();
    if (wanted("tools"))
        phase_tools();
    if (wanted("lockrt"))
        phase_lockdown();
}

int main(int count, char **words) {
    if (count < 5) {
        fprintf(stderr, "usage: %s CONFIG OUTDIR RECORDS MONITOR [PHASE,PHASE...]\n", words[0]);
        return 2;
    }
    out_folder = words[2];
    if (count > 5)
        chosen = words[5];
    if (getenv("TMPDIR"))
        temporary = getenv("TMPDIR");
    setenv("TMPDIR", temporary, 1);
    open_records(words[1], words[3]);
    open_monitor(words[4]);
    catch_signals();
    all_phases();
    phase = "end";
    begin("done", "end");
    result(records_made(), 0);
    end();
    shell(form("dmesg > %s/dmesg-end.txt 2>&1", out_folder));
    return 0;
}
