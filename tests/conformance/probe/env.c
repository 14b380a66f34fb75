/* Phases env and tools: what the machine is, and what people's tools make of it. */
#include "probe.h"
#include <fcntl.h>

static void keep_files(void) {
    static const char *const files[][2] = {
        {"/proc/version", "version.txt"},
        {"/proc/cmdline", "cmdline.txt"},
        {"/proc/iomem", "iomem-root-boot.txt"},
        {"/proc/ioports", "ioports.txt"},
        {"/proc/cpuinfo", "cpuinfo.txt"},
        {"/proc/mtrr", "mtrr.txt"},
        {"/proc/meminfo", "meminfo.txt"},
        {"/sys/kernel/security/lockdown", "lockdown.txt"},
        {"/proc/devices", "devices.txt"},
    };
    for (size_t i = 0; i < COUNT(files); i++)
        snapshot(files[i][0], files[i][1]);
    shell(form("dmesg > %s/dmesg-boot.txt 2>&1", out_folder));
    list_directory("/sys/firmware", "sysfs-firmware.ls", 1);
    shell(form("cd /sys/firmware/memmap && for d in $(ls | sort -n); do echo $d $(cat $d/start $d/end $d/type); done "
               "> %s/firmware-memmap.txt",
               out_folder));
    list_directory("/sys/bus/pci", "sysfs-bus-pci.ls", 1);
    list_directory("/dev", "dev.ls", 0);
}

static void iomem_of_root(void) {
    struct stat found;
    size_t size = 0;
    char *all = slurp("/proc/iomem", &size);
    begin("iomem-root", "open+read");
    result(size, 0);
    if (all)
        data_text(all);
    end();
    free(all);
    stat("/proc/iomem", &found);
    begin("iomem-stat", "stat");
    result(0, 0);
    hex("mode", found.st_mode);
    end();
}

static void user_reads(int roots_fd, int kept) {
    char bytes[300];
    size_t size = 0;
    char *all = slurp("/proc/iomem", &size);
    begin("iomem-user", "open+read");
    result(size, 0);
    if (all) {
        data_text(all);
        (void)!write(kept, all, size);
    }
    end();
    ssize_t got = read(roots_fd, bytes, 200);
    begin("iomem-rootfd-read-by-user", "read");
    answered(got);
    bytes[got > 0 ? got : 0] = 0;
    if (got > 0)
        data_text(bytes);
    end();
}

static void iomem_of_user(void) {
    int kept = open(form("%s/iomem-user-boot.txt", out_folder), O_CREAT | O_WRONLY | O_TRUNC, 0644);
    int roots_fd = open("/proc/iomem", O_RDONLY);
    AS_USER(user_reads(roots_fd, kept));
    close(kept);
    close(roots_fd);
}

/* QEMU's own view, and from it the region of the virtio-mem device vm0. */
static void hypervisor(void) {
    static char said[1 << 18];
    static const char *const views[][2] = {{"info mtree -f", "qemu-mtree.txt"},
                                           {"info pci", "qemu-info-pci.txt"},
                                           {"info memory-devices", "qemu-memory-devices.txt"}};
    for (size_t i = 0; i < COUNT(views); i++) {
        monitor(views[i][0], said, sizeof said);
        spew(views[i][1], said, strlen(said));
    }
    char *device = strstr(said, "vm0");
    char *start = device ? strstr(device, "memaddr: 0x") : NULL, *size = device ? strstr(device, "max-size: ") : NULL;
    u64 bytes = size ? strtoull(size + 10, NULL, 0) : 0;
    if (start)
        virtio_mem_start = strtoull(start + 9, NULL, 16);
    if (virtio_mem_start)
        virtio_mem_end = virtio_mem_start + (bytes ? bytes : 1ULL << 30) - 1;
    begin("virtio-mem-region", "qemu_monitor");
    result(0, 0);
    hex("start", virtio_mem_start);
    hex("end", virtio_mem_end);
    data_text(said);
    end();
}

void phase_env(void) {
    phase = "env";
    keep_files();
    iomem_of_root();
    iomem_of_user();
    read_file("lockdown", "/sys/kernel/security/lockdown");
    read_file("cmdline", "/proc/cmdline");
    kcore_records("boot");
    blocks_snapshot("boot");
    monitor_record("mtree", "info mtree -f");
    hypervisor();
}

/* -- tools */

static const char *const commands[] = {
    "busybox devmem 0",
    "busybox devmem 0xf0000",
    "busybox devmem 0xf0000 8",
    "busybox devmem 0xfffff",
    "busybox devmem 0xffff0 64",
    "busybox devmem 0x100000",
    "busybox devmem 0xfee00020",
    "busybox devmem 0xfec00000",
    "busybox devmem 0xfed00000 64",
    "busybox devmem 0xb0000000",
    "busybox devmem 0x40000000",
    "busybox devmem 0x10000000000",
    "busybox devmem 0x10000000000000",
    "busybox devmem 0xb8000 16",
    "busybox devmem 0xb8000 16 0x0741",
    "busybox devmem 0xb8000 16",
    "busybox devmem 0xb8001 8",
    "busybox devmem 0xb8001 16",
    "busybox devmem 0xb8001 32",
    "busybox devmem 0xb8ffe 32",
    "busybox devmem 0xfffffffffffffff0",
    "busybox devmem 0x1fffe000",
    "dd if=/dev/mem bs=16 skip=61440 count=1 2>&1 | hexdump -C",
    "dd if=/dev/mem bs=1M count=1 2>&1 | md5sum",
    "dd if=/dev/mem bs=1M count=2 of=$TMPDIR/x",
    "dd if=/dev/mem bs=4096 skip=255 count=2 of=$TMPDIR/x",
    "cat /dev/mem > $TMPDIR/x; ls -la $TMPDIR/x",
    "dd if=/dev/mem bs=4096 count=1 skip=262144 2>&1 | hexdump -C | head -3",
    "hexdump -C -s 0xf0000 -n 64 /dev/mem",
    "strings /dev/mem | head -3",
    "dmidecode --no-sysfs -t bios 2>&1 | head -20",
    "dmidecode --no-sysfs -d /dev/mem 2>&1 | head -6",
    "biosdecode 2>&1 | head -30",
    "lspci -nn 2>&1",
    "lspci -vvv -s 00:03.0 2>&1 | head -30",
    "setpci -s 00:03.0 VENDOR_ID.W 2>&1",
    "hexdump -C /sys/firmware/dmi/tables/smbios_entry_point",
    "hexdump -C -n 128 /sys/firmware/dmi/tables/DMI",
    "ls -la /sys/firmware/acpi/tables /sys/firmware/dmi/tables",
    "hexdump -C -n 64 /sys/firmware/acpi/tables/APIC",
    "strace busybox devmem 0xf0000 2>&1 | tail -12",
    "strace busybox devmem 0x100000 2>&1 | tail -12",
    "strace -e trace=openat,mmap,read,lseek,pread64,munmap,close,fstat dmidecode --no-sysfs -t bios 2>&1 | "
    "grep -A8 -B2 /dev/mem | head -40",
};

void phase_tools(void) {
    phase = "tools";
    for (size_t i = 0; i < COUNT(commands); i++)
        shell_record("tool", commands[i]);
    load_pci();
    for (int i = 0; i < known_count; i++) {
        struct pci_device *device = find_pci(known_devices[i].vendor, known_devices[i].device);
        for (int bar = 0; device && bar < 6; bar++)
            if (has_memory_bar(device, bar))
                shell_record(form("tool-devmem-%s-bar%d", known_devices[i].name, bar),
                             form("busybox devmem 0x%llx", (unsigned long long)device->bars[bar].start));
    }
    shell(form("dd if=/dev/mem bs=64k skip=15 count=1 of=%s/low-f0000.bin 2>/dev/null; "
               "dd if=/dev/mem bs=64k skip=12 count=3 of=%s/low-c0000.bin 2>/dev/null; "
               "cp -r /sys/firmware/acpi/tables %s/acpi-tables 2>/dev/null; "
               "cp /sys/firmware/dmi/tables/* %s/ 2>/dev/null",
               out_folder, out_folder, out_folder, out_folder));
}
