/* /proc/kcore: its program headers, and memory through them. */
#include "probe.h"
#include <elf.h>

/* Where /proc cannot show it, fakedev has it below /dev. */
const char *kcore_path(void) {
    return access("/proc/kcore", F_OK) ? "/dev/kcore" : "/proc/kcore";
}

static size_t describe(int fd, const Elf64_Ehdr *header, const Elf64_Phdr *segments, int count, char *text) {
    struct stat found;
    fstat(fd, &found);
    size_t used = sprintf(text, "ELF type %d machine %d phnum %d size %lld\n", header->e_type, header->e_machine,
                          header->e_phnum, (long long)found.st_size);
    used += sprintf(text + used, "%-6s %18s %18s %18s %10s %10s %s %s\n", "Type", "Offset", "VirtAddr", "PhysAddr",
                    "FileSiz", "MemSiz", "Flg", "Align");
    for (int i = 0; i < count; i++) {
        const Elf64_Phdr *one = &segments[i];
        const char *type = one->p_type == PT_LOAD ? "LOAD" : one->p_type == PT_NOTE ? "NOTE" : "?";
        used += sprintf(text + used, "%-6s 0x%016lx 0x%016lx 0x%016lx 0x%lx 0x%lx %c%c%c 0x%lx\n", type, one->p_offset,
                        one->p_vaddr, one->p_paddr, one->p_filesz, one->p_memsz, one->p_flags & PF_R ? 'R' : '-',
                        one->p_flags & PF_W ? 'W' : '-', one->p_flags & PF_X ? 'X' : '-', one->p_align);
    }
    return used;
}

static void read_segment(int fd, const Elf64_Phdr *segment) {
    unsigned char bytes[16];
    ssize_t got = pread(fd, bytes, sizeof bytes, segment->p_offset);
    begin("kcore-read-segment", "pread");
    hex("paddr", segment->p_paddr);
    hex("offset", segment->p_offset);
    answered(got);
    if (got > 0)
        data_bytes(bytes, got);
    end();
}

void kcore_records(const char *tag) {
    static Elf64_Phdr segments[256];
    static char description[1 << 16];
    Elf64_Ehdr header;
    int fd = open(kcore_path(), O_RDONLY);
    if (fd < 0) {
        answer("kcore-open", "open", -1);
        return;
    }
    (void)!pread(fd, &header, sizeof header, 0);
    int count = header.e_phnum > COUNT(segments) ? (int)COUNT(segments) : header.e_phnum;
    (void)!pread(fd, segments, count * sizeof *segments, header.e_phoff);
    size_t size = describe(fd, &header, segments, count, description);
    spew(form("kcore-%s.txt", tag), description, size);
    begin("kcore-phdrs", "read");
    text("tag", tag);
    result(count, 0);
    description[size > 6000 ? 6000 : size] = 0;
    data_text(description);
    end();
    for (int i = 0; i < count; i++)
        if (segments[i].p_type == PT_LOAD && segments[i].p_paddr != (Elf64_Addr)-1)
            read_segment(fd, &segments[i]);
    close(fd);
}
