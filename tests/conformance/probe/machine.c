/* /proc/iomem, and the functions of PCI. */
#include "probe.h"
#include <dirent.h>
#include <inttypes.h>

struct resource resources[1024];
int resource_count;
struct pci_device devices[64];
int device_count;

void load_iomem(void) {
    resource_count = 0;
    char *all = slurp("/proc/iomem", NULL);
    if (!all)
        return;
    for (char *line = strtok(all, "\n"); line && resource_count < (int)COUNT(resources); line = strtok(NULL, "\n")) {
        struct resource *one = &resources[resource_count];
        size_t indent = strspn(line, " ");
        char *name = strstr(line, " : ");
        if (!name || sscanf(line + indent, "%" SCNx64 "-%" SCNx64, &one->start, &one->end) != 2)
            continue;
        one->depth = indent / 2;
        snprintf(one->name, sizeof one->name, "%s", name + 3);
        resource_count++;
    }
    free(all);
}

void iomem_path(u64 address, char *path, size_t size) {
    path[0] = 0;
    for (int i = 0; i < resource_count; i++) {
        if (address < resources[i].start || address > resources[i].end)
            continue;
        if (path[0])
            strncat(path, " > ", size - strlen(path) - 1);
        strncat(path, resources[i].name, size - strlen(path) - 1);
    }
    if (!path[0])
        snprintf(path, size, "(unclaimed)");
}

struct resource *find_resource(const char *name) {
    for (int i = 0; i < resource_count; i++)
        if (!strcmp(resources[i].name, name))
            return &resources[i];
    return NULL;
}

const char *sysfs_of(const struct pci_device *device, const char *file) {
    return form("/sys/bus/pci/devices/%s%s%s", device->bdf, *file ? "/" : "", file);
}

const char *proc_of(const struct pci_device *device) {
    return form("/proc/bus/pci/%.2s/%s", device->bdf + 5, device->bdf + 8);
}

static long number_in(const struct pci_device *device, const char *file) {
    char *found = slurp(sysfs_of(device, file), NULL);
    long number = found ? strtol(found, NULL, 0) : -1;
    free(found);
    return number;
}

static void load_bars(struct pci_device *device) {
    char *all = slurp(sysfs_of(device, "resource"), NULL), *at = all;
    for (int i = 0; all && i < (int)COUNT(device->bars); i++) {
        struct bar *bar = &device->bars[i];
        int size = 0;
        if (sscanf(at, "%" SCNx64 " %" SCNx64 " %" SCNx64 "%n", &bar->start, &bar->end, &bar->flags, &size) < 3)
            break;
        device->bar_count = i + 1;
        at += size;
    }
    free(all);
}

void load_pci(void) {
    device_count = 0;
    DIR *folder = opendir("/sys/bus/pci/devices");
    struct dirent *entry;
    while (folder && (entry = readdir(folder)) && device_count < (int)COUNT(devices)) {
        if (entry->d_name[0] == '.')
            continue;
        struct pci_device *device = &devices[device_count++];
        memset(device, 0, sizeof *device);
        snprintf(device->bdf, sizeof device->bdf, "%.31s", entry->d_name);
        device->vendor = number_in(device, "vendor");
        device->device = number_in(device, "device");
        device->class = number_in(device, "class");
        load_bars(device);
    }
    if (folder)
        closedir(folder);
}

struct pci_device *find_pci(unsigned vendor, unsigned device) {
    for (int i = 0; i < device_count; i++)
        if (devices[i].vendor == vendor && devices[i].device == device)
            return &devices[i];
    return NULL;
}

int has_memory_bar(const struct pci_device *device, int bar) {
    return device && bar < device->bar_count && device->bars[bar].flags & 0x200 && device->bars[bar].start;
}

void driver_of(const struct pci_device *device, char *name, size_t size) {
    char link[256];
    ssize_t length = readlink(sysfs_of(device, "driver"), link, sizeof link - 1);
    link[length < 0 ? 0 : length] = 0;
    char *last = strrchr(link, '/');
    snprintf(name, size, "%s", length < 0 ? "(none)" : last ? last + 1 : link);
}

void driver_state(const char *name, const struct pci_device *device, int bar) {
    char driver[32], path[300];
    load_iomem();
    driver_of(device, driver, sizeof driver);
    iomem_path(device->bars[bar].start, path, sizeof path);
    begin(name, "state");
    text("bdf", device->bdf);
    result_text(driver);
    text("iomem", path);
    char *enabled = slurp(sysfs_of(device, "enable"), NULL);
    if (enabled)
        text("enable", enabled);
    free(enabled);
    int fd = open(sysfs_of(device, "config"), O_RDONLY);
    uint16_t command = 0;
    if (fd >= 0) {
        (void)!pread(fd, &command, 2, 4);
        hex("pci_command", command);
        close(fd);
    }
    end();
}
