/* The probe asks a kernel what /dev/mem, PCI's sysfs, /proc/iomem, memory hot-plug and their neighbours answer.
 *
 * One record is one system call, or one load or store: a JSON object on a line of its own. It needs root in a
 * machine of its own. probe CONFIG OUTDIR RECORDS MONITOR [PHASES], where RECORDS is a file or a serial line,
 * MONITOR a terminal with QEMU's monitor. TMPDIR (/tmp) is for files that come and go, PROBE_SLEEP the percent
 * of the time to wait for drivers (100). */
#ifndef PROBE_H
#define PROBE_H
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

typedef uint64_t u64;
typedef uint32_t u32;

#define PAGE 4096UL
#define DEVMEM "/dev/mem"
#define RW (PROT_READ | PROT_WRITE)
#define COUNT(array) (sizeof(array) / sizeof *(array))
#define PCIIOC_MMAP_IS_MEM_ (('P' << 24 | 'C' << 16 | 'I' << 8) | 0x02)

/* -- record.c: writing records. Fields before result() are arguments, those after it answers. */
extern const char *phase;
void open_records(const char *config, const char *path);
void begin(const char *name, const char *op);
void hex(const char *field, u64 value);
void integer(const char *field, long long value);
void text(const char *field, const char *value);
void raw(const char *format, ...) __attribute__((format(printf, 1, 2)));
void key(const char *field);
void result(long long value, int error);
void result_text(const char *value);
void answered(long long value); /* of a call: -1 with errno, or what it returned */
void data_bytes(const void *bytes, size_t size);
void data_text(const char *value);
void note(const char *value);
void signal_field(void *base, u64 phys); /* what was caught last */
void signal_of_child(int signo, int code);
void end(void);
void answer(const char *name, const char *op, long long value); /* a record of nothing but an answer */
void discard_kmsg(void);
int records_made(void);

/* -- touch.c: loads and stores that may fault */
extern sigjmp_buf escape;
extern volatile sig_atomic_t guarded;
extern siginfo_t caught;
#define TRY(statement)                                                                                                 \
    ({                                                                                                                 \
        volatile int signal_ = 0;                                                                                      \
        guarded = 1;                                                                                                   \
        if (sigsetjmp(escape, 1) == 0) {                                                                               \
            statement;                                                                                                 \
        } else {                                                                                                       \
            signal_ = caught.si_signo;                                                                                 \
        }                                                                                                              \
        guarded = 0;                                                                                                   \
        signal_;                                                                                                       \
    })
void catch_signals(void);
int touch_read(const char *name, void *base, size_t offset, int width, u64 phys, const char *said);
int touch_write(const char *name, void *base, size_t offset, int width, u64 value, u64 phys, const char *said);

/* -- system.c: files, commands, the monitor, users */
extern const char *out_folder, *temporary;
const char *form(const char *format, ...) __attribute__((format(printf, 1, 2))); /* one of a few static buffers */
char *slurp(const char *path, size_t *size);
void spew(const char *name, const char *bytes, size_t size);
void snapshot(const char *path, const char *name);
void list_directory(const char *folder, const char *name, int recursive);
void settle(int milliseconds);
int shell(const char *command);
int shell_record(const char *name, const char *command);
int write_file(const char *name, const char *path, const char *value);
void read_file(const char *name, const char *path);
void open_monitor(const char *path);
void monitor(const char *command, char *said, size_t size);
void monitor_record(const char *name, const char *command);
int become_user(void);
void drop_capability(int number);
#define IN_CHILD(...)                                                                                                  \
    do {                                                                                                               \
        fflush(NULL);                                                                                                  \
        pid_t child_ = fork();                                                                                         \
        if (!child_) {                                                                                                 \
            __VA_ARGS__;                                                                                               \
            _exit(0);                                                                                                  \
        }                                                                                                              \
        if (child_ > 0)                                                                                                \
            waitpid(child_, NULL, 0);                                                                                  \
    } while (0)
/* Where there is nobody to become, these records are not made. */
#define AS_USER(...)                                                                                                   \
    IN_CHILD({                                                                                                         \
        if (become_user())                                                                                             \
            _exit(99);                                                                                                 \
        __VA_ARGS__;                                                                                                   \
    })

/* -- machine.c: /proc/iomem and PCI, as they were when they were loaded last */
struct resource {
    u64 start, end;
    int depth;
    char name[96];
};
struct bar {
    u64 start, end, flags;
};
struct pci_device {
    char bdf[32];
    unsigned vendor, device, class;
    struct bar bars[13];
    int bar_count;
};
extern struct resource resources[];
extern int resource_count;
extern struct pci_device devices[];
extern int device_count;
void load_iomem(void);
void load_pci(void);
void iomem_path(u64 address, char *path, size_t size);
struct resource *find_resource(const char *name);
struct pci_device *find_pci(unsigned vendor, unsigned device);
int has_memory_bar(const struct pci_device *device, int bar);
void driver_of(const struct pci_device *device, char *name, size_t size);
const char *sysfs_of(const struct pci_device *device, const char *file);
const char *proc_of(const struct pci_device *device);
void driver_state(const char *name, const struct pci_device *device, int bar);

/* -- calls.c: system calls with their records */
int open_record(const char *name, const char *path, int flags, const char *who);
void *map_record(const char *name, int fd, const char *what, u64 offset, size_t length, int prot, int flags);
int map_and_touch(const char *name, int fd, const char *what, u64 offset, size_t length, int prot, int flags,
                  int store);
long read_at(const char *name, int fd, const char *what, u64 offset, size_t length);
long write_at(const char *name, int fd, const char *what, u64 offset, const void *bytes, size_t length);
void fork_record(const char *name, const char *said);
void stat_record(const char *name, int fd);
int changed_bytes(const unsigned char *buffer, size_t size); /* up to the last one that is not FILL */
void smaps_of(void *address, char *found, size_t size);
void memtype_of(u64 address, char *found, size_t size);
void smaps_record(const char *name, void *address);
const char *prot_name(int prot);
const char *map_flags_name(int flags);
void unmap(void *address, size_t length);
#define FILL 0xA5

/* -- vm.c: what the memory management does with a mapping of two pages or more, which is gone afterwards */
void remap_records(const char *prefix, char *map, size_t length, u64 phys);
void vm_records(const char *prefix, char *map, size_t length, u64 phys, int may_store);
void pagemap_record(const char *name, void *address);

/* -- targets.c: addresses worth asking about */
struct target {
    char name[72];
    u64 address, length;
    int store; /* 1: through every mapping, 2: through private ones */
};
struct known_device {
    const char *name;
    unsigned vendor, device;
};
extern struct target targets[];
extern int target_count;
extern const struct known_device known_devices[];
extern const int known_count;
extern u64 virtio_mem_start, virtio_mem_end;
void load_targets(void);
void matrix(const char *name, int full);

/* -- memory.c */
void blocks_snapshot(const char *tag);
const char *kcore_path(void);
void kcore_records(const char *tag);

/* -- phases */
void phase_env(void);
void phase_open(void);
void phase_fd(void);
void phase_lowram(void);
void phase_mmap_args(void);
void phase_vm_ops(void);
void phase_sysfs(const char *name);
void phase_sysfs_ops(void);
void phase_bind(void);
void phase_nvdimm(void);
void phase_vmem(void);
void phase_revoke(const char *name, unsigned vendor, unsigned device, int bar, const char *module, const char *driver);
void phase_cross_write(void);
void phase_remove(const char *name, unsigned vendor, unsigned device, int bar, const char *del, const char *add);
void phase_dimm(void);
void phase_tools(void);
void phase_lockdown(void);
#endif
