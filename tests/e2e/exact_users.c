/* Calls about users, groups and capabilities with bad arguments: as root, with other ids, and as nobody.

   Prints one line a call: its name, the argument, the result and "ok" or the errno. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define VERSION_3 0x20080522

static char *good;

static void say(const char *call, const char *argument, long result)
{
    printf("%s %s %ld %s\n", call, argument, result, result < 0 ? strerrorname_np(errno) : "ok");
}

static void pointer(const char *name, uintptr_t at, int readable, int round)
{
    unsigned one, two, data[6], header[2] = {VERSION_3, 0};

    if (round) {
        say("getgroups", name, syscall(SYS_getgroups, 10, at));
        say("getgroups-few", name, syscall(SYS_getgroups, 1, at));
    }
    say("getgroups-none", name, syscall(SYS_getgroups, 0, at));
    say("getgroups-negative", name, syscall(SYS_getgroups, -1, at));
    say("getresuid-first", name, syscall(SYS_getresuid, at, &one, &two));
    say("getresuid-last", name, syscall(SYS_getresuid, &one, &two, at));
    say("getresgid", name, syscall(SYS_getresgid, &one, at, &two));
    say("setgroups-many", name, syscall(SYS_setgroups, 65537, at));
    say("setgroups-negative", name, syscall(SYS_setgroups, -1, at));
    memset(good, 0, 4096);
    say("capget-header", name, syscall(SYS_capget, at, data));
    memset(good, 0, 4096);
    say("capset-header", name, syscall(SYS_capset, at, data));
    say("capget-data", name, syscall(SYS_capget, header, at));
    header[1] = -1;
    say("capget-pid", name, syscall(SYS_capget, header, at));
    header[0] = 1;
    say("capget-version", name, syscall(SYS_capget, header, at));
    header[0] = VERSION_3;
    header[1] = 0;
    if (!readable) {
        say("setgroups", name, syscall(SYS_setgroups, 3, at));
        say("capset-data", name, syscall(SYS_capset, header, at));
        say("chown", name, syscall(SYS_chown, at, 55, 66));
    }
}

static void values(void)
{
    say("setuid", "-1", syscall(SYS_setuid, -1));
    say("setgid", "-1", syscall(SYS_setgid, -1));
    say("setresuid", "-1", syscall(SYS_setresuid, -1, -1, -1));
    say("setresuid", "garbage", syscall(SYS_setresuid, (0x5aUL << 32) | 0xffffffff, -1, -1));
    say("setfsuid", "-1", syscall(SYS_setfsuid, -1));
    say("setfsgid", "-1", syscall(SYS_setfsgid, -1));
    say("keepcaps", "2", prctl(PR_SET_KEEPCAPS, 2));
    say("securebits", "unknown", prctl(PR_SET_SECUREBITS, 0x100000));
    say("chown", "nothing", syscall(SYS_chown, "/dev/no-such", 55, 66));
    say("fchown", "closed", syscall(SYS_fchown, 77, 55, 66));
    say("fchownat", "closed", syscall(SYS_fchownat, 77, "x", 55, 66, 0));
    say("fchownat", "flags", syscall(SYS_fchownat, -100, "/", 55, 66, 0x40000));
}

int main(void)
{
    const unsigned groups[] = {5, 6, 7};

    setvbuf(stdout, NULL, _IOLBF, 0);
    good = mmap(NULL, 3 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect(good + 4096, 4096, PROT_READ);
    munmap(good + 2 * 4096, 4096);
    char *none = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (int round = 0; round < 3; round++) {
        if (round == 1) {
            say("setgroups", "3", syscall(SYS_setgroups, 3, groups));
            say("setresgid", "others", syscall(SYS_setresgid, 1000, 1001, 1002));
            say("setresuid", "others", syscall(SYS_setresuid, 0, 1001, 1002));
        }
        if (round == 2)
            say("setresuid", "nobody", syscall(SYS_setresuid, 1001, 1001, 1001));
        pointer("good", (uintptr_t)good, 1, round);
        pointer("null", 0, 0, round);
        pointer("small", 8, 0, round);
        pointer("wild", 0xdeadbeef000, 0, round);
        pointer("kernel", 0xffff888000000000, 0, round);
        pointer("last", -1UL, 0, round);
        pointer("none", (uintptr_t)none, 0, round);
        pointer("constant", (uintptr_t)good + 4096, 1, round);
        pointer("across", (uintptr_t)good + 2 * 4096 - 4, 0, round);
        values();
    }
    return 0;
}
