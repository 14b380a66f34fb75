/* Phase bind-errors: drivers that claim nothing, and what their files refuse. */
#include "probe.h"

#define STUB "/sys/bus/pci/drivers/pci-stub/"
#define UIO "/sys/bus/pci/drivers/uio_pci_generic/"

static void driver_record(const char *name, const struct pci_device *device) {
    char driver[64];
    driver_of(device, driver, sizeof driver);
    begin(name, "readlink");
    result_text(driver);
    end();
}

static void iomem_record(const char *name, u64 address) {
    char path[256];
    load_iomem();
    iomem_path(address, path, sizeof path);
    begin(name, "read");
    result(0, 0);
    data_text(path);
    end();
}

static void map_bar(const char *name, u64 address) {
    int fd = open(DEVMEM, O_RDWR);
    if (fd < 0)
        return;
    map_and_touch(name, fd, DEVMEM, address, PAGE, PROT_READ, MAP_SHARED, 0);
    close(fd);
}

static void bound_to_stub(const struct pci_device *device) {
    driver_record("driver-after-new_id", device);
    write_file("bind-already-bound", STUB "bind", device->bdf);
    iomem_record("iomem-after-pci-stub-bind", device->bars[0].start);
    map_bar("edu-mmap-under-pci-stub", device->bars[0].start);
    write_file("unbind-ok", STUB "unbind", device->bdf);
    write_file("unbind-again", STUB "unbind", device->bdf);
    write_file("bind-with-newline", STUB "bind", form("%s\n", device->bdf));
    write_file("unbind-with-newline", STUB "unbind", form("%s\n", device->bdf));
    write_file("bind-leading-space", STUB "bind", form(" %s", device->bdf));
    write_file("bind-short-bdf-no-domain", STUB "bind", device->bdf + 5);
}

static void stub_records(const struct pci_device *device) {
    write_file("bind-nonexistent-bdf", STUB "bind", "0000:ff:1f.7");
    write_file("bind-garbage", STUB "bind", "hello");
    write_file("bind-empty", STUB "bind", "");
    if (device) {
        write_file("bind-nonmatching-device", STUB "bind", device->bdf);
        write_file("unbind-not-bound", STUB "unbind", device->bdf);
    }
    write_file("unbind-nonexistent", STUB "unbind", "0000:ff:1f.7");
    write_file("new_id-garbage", STUB "new_id", "zzzz");
    write_file("new_id-one-field", STUB "new_id", "1234");
    write_file("new_id-ok", STUB "new_id", "1234 11e8");
    write_file("new_id-duplicate", STUB "new_id", "1234 11e8");
    if (device)
        bound_to_stub(device);
    write_file("remove_id-absent", STUB "remove_id", "dead beef");
    write_file("remove_id-ok", STUB "remove_id", "1234 11e8");
    write_file("remove_id-again", STUB "remove_id", "1234 11e8");
    read_file("bind-read", STUB "bind");
}

static void override_records(const struct pci_device *device) {
    const char *path = sysfs_of(device, "driver_override");
    read_file("driver_override-read", path);
    write_file("driver_override-set", path, "pci-stub");
    read_file("driver_override-read2", path);
    write_file("drivers_probe", "/sys/bus/pci/drivers_probe", device->bdf);
    driver_record("driver-after-override-probe", device);
    write_file("unbind-override", STUB "unbind", device->bdf);
    write_file("driver_override-clear", path, "\n");
    write_file("drivers_probe-nonexistent", "/sys/bus/pci/drivers_probe", "0000:ff:1f.7");
}

static void uio_records(const struct pci_device *device) {
    shell_record("modprobe-uio", "modprobe uio_pci_generic");
    write_file("uio-new_id", UIO "new_id", "1234 11e8");
    driver_record("uio-driver", device);
    iomem_record("uio-iomem", device->bars[0].start);
    map_bar("uio-devmem-mmap", device->bars[0].start);
    int fd = open_record("uio-open", "/dev/uio0", O_RDWR, "root");
    map_record("uio-mmap", fd, "/dev/uio0", 0, PAGE, PROT_READ, MAP_SHARED); /* stays, and keeps the module */
    if (fd >= 0)
        close(fd);
    shell_record("uio-sysfs", "ls -laR /sys/class/uio/ /sys/class/uio/uio0/ 2>&1 | head -40");
    write_file("uio-unbind", UIO "unbind", device->bdf);
    shell_record("rmmod-uio", "rmmod uio_pci_generic");
}

static void vfio_records(const struct pci_device *device) {
    shell_record("modprobe-vfio-pci", "modprobe vfio-pci");
    write_file("vfio-new_id", "/sys/bus/pci/drivers/vfio-pci/new_id", "1234 11e8");
    write_file("vfio-bind", "/sys/bus/pci/drivers/vfio-pci/bind", device->bdf);
    shell_record("rmmod-vfio", "rmmod vfio-pci");
}

void phase_bind(void) {
    phase = "bind-errors";
    load_pci();
    struct pci_device *device = find_pci(0x1234, 0x11e8);
    shell_record("modprobe-pci-stub", "modprobe pci-stub");
    list_directory("/sys/bus/pci/drivers/pci-stub", "sysfs-driver-pci-stub.ls", 0);
    stub_records(device);
    if (device) {
        override_records(device);
        uio_records(device);
        vfio_records(device);
    }
    AS_USER(write_file("bind-as-user", STUB "bind", "0000:00:01.0"));
    shell_record("rmmod-pci-stub", "rmmod pci-stub");
}
