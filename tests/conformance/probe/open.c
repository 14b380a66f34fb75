/* Phase open: who may open what. */
#include "probe.h"
#include <grp.h>
#include <linux/capability.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/sysmacros.h>

static const int all_flags[] = {
    O_RDONLY,           O_WRONLY,           O_RDWR,
    O_RDWR | O_SYNC,    O_RDONLY | O_SYNC,  O_RDWR | O_DSYNC,
    O_RDWR | O_CLOEXEC, O_RDWR | O_NONBLOCK, O_RDWR | O_APPEND,
    O_RDWR | O_TRUNC,   O_RDWR | O_DIRECT,  O_RDONLY | O_DIRECTORY,
    O_RDWR | O_CREAT,   O_RDWR | O_CREAT | O_EXCL, O_PATH,
    O_RDONLY | O_NOATIME,
};

static void open_and_close(const char *name, const char *path, int flags, const char *who) {
    int fd = open_record(name, path, flags, who);
    if (fd >= 0)
        close(fd);
}

static void devmem_stat(void) {
    struct stat found = {0};
    int status = stat(DEVMEM, &found);
    begin("stat-devmem-devtmpfs", "stat");
    answered(status);
    key("st");
    raw("{\"mode\":\"%o\",\"rdev\":\"%u:%u\",\"uid\":%d,\"gid\":%d,", found.st_mode, major(found.st_rdev),
        minor(found.st_rdev), found.st_uid, found.st_gid);
    raw("\"size\":%lld,\"blksize\":%ld,\"nlink\":%ld}", (long long)found.st_size, (long)found.st_blksize,
        (long)found.st_nlink);
    note("as created by devtmpfs, no udev");
    end();
}

static void iomem_record(const char *name, const char *path, size_t shown) {
    size_t size = 0;
    char *all = slurp("/proc/iomem", &size);
    begin(name, "open+read");
    if (path)
        text("path", path);
    result(size, 0);
    if (all) {
        all[size > shown ? shown : size] = 0;
        data_text(all);
    }
    end();
}

/* A user who keeps one capability. */
static void become_user_with_rawio(void) {
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct sets[2] = {{0}};
    prctl(PR_SET_KEEPCAPS, 1);
    if (become_user())
        _exit(99);
    sets[0].effective = sets[0].permitted = 1u << CAP_SYS_RAWIO;
    syscall(SYS_capset, &header, sets);
}

static void user_in_kmem_group(void) {
    gid_t group = 15;
    setgroups(1, &group);
    if (setresgid(1000, 1000, 1000) || setresuid(1000, 1000, 1000))
        _exit(99);
    open_record("open-devmem-user-in-kmem-group-0640", DEVMEM, O_RDONLY, "uid1000 groups=kmem(15), no caps");
}

static void without_rawio(void) {
    static const char name[] = "open-devmem-root-without-CAP_SYS_RAWIO", who[] = "uid0 minus CAP_SYS_RAWIO";
    drop_capability(CAP_SYS_RAWIO);
    open_record(name, DEVMEM, O_RDONLY, who);
    open_record(name, "/dev/port", O_RDONLY, who);
}

static void without_admin(void) {
    drop_capability(CAP_SYS_ADMIN);
    open_and_close("open-devmem-root-without-CAP_SYS_ADMIN", DEVMEM, O_RDONLY, "uid0 minus CAP_SYS_ADMIN");
    iomem_record("iomem-root-without-CAP_SYS_ADMIN", "/proc/iomem", 300);
}

static void user_with_rawio(void) {
    become_user_with_rawio();
    int fd = open_record("open-devmem-user-with-CAP_SYS_RAWIO-mode0666", DEVMEM, O_RDWR, "uid1000+CAP_SYS_RAWIO");
    read_at("user+RAWIO-pread", fd, "/dev/mem(uid1000+RAWIO)", 0xf0000, 16);
}

static void in_child_namespace(void) {
    int status = unshare(CLONE_NEWUSER);
    answer("unshare-userns", "unshare", status);
    if (status)
        return;
    open_record("open-devmem-root-in-child-userns", DEVMEM, O_RDONLY,
                "uid0 (init) after unshare(CLONE_NEWUSER), full caps in child ns; mode 0666");
    open_record("open-config-in-child-userns", "/proc/iomem", O_RDONLY, "child userns");
    iomem_record("iomem-in-child-userns", NULL, 120);
}

static void user_with_roots_fd(int fd) {
    static const char name[] = "root-fd-used-by-user", what[] = "/dev/mem(root fd, uid1000 now)";
    read_at(name, fd, what, 0xf0000, 16);
    map_and_touch(name, fd, what, 0xf0000, PAGE, PROT_READ, MAP_SHARED, 0);
    open_record("reopen-proc-self-fd-user", form("/proc/self/fd/%d", fd), O_RDONLY, "uid1000");
}

static void others(void) {
    open_record("open-devkmem", "/dev/kmem", O_RDONLY, "root");
    open_and_close("open-devport", "/dev/port", O_RDWR, "root");
    open_and_close("open-kcore", kcore_path(), O_RDONLY, "root");
    AS_USER(open_record("open-kcore-user", kcore_path(), O_RDONLY, "uid1000"));
    const char *node = form("%s/mem2", temporary);
    unlink(node);
    if (!mknod(node, S_IFCHR | 0600, makedev(1, 1)))
        open_and_close("open-mknod-other-path", node, O_RDWR, "root, mknod c 1 1 on tmpfs");
}

void phase_open(void) {
    static const char refused[] = "open-devmem-user-mode0600";
    phase = "open";
    devmem_stat();
    for (size_t i = 0; i < COUNT(all_flags); i++)
        open_and_close("open-devmem-root", DEVMEM, all_flags[i], "root");
    AS_USER({
        open_and_close(refused, DEVMEM, O_RDONLY, "uid1000");
        open_record(refused, DEVMEM, O_RDWR, "uid1000");
        open_record("open-devmem-user-O_PATH", DEVMEM, O_PATH, "uid1000");
    });
    chmod(DEVMEM, 0640);
    (void)!chown(DEVMEM, 0, 15);
    IN_CHILD(user_in_kmem_group());
    chmod(DEVMEM, 0666);
    AS_USER(open_record("open-devmem-user-mode0666", DEVMEM, O_RDONLY, "uid1000 mode 0666, no caps"));
    IN_CHILD(without_rawio());
    IN_CHILD(without_admin());
    IN_CHILD(user_with_rawio());
    IN_CHILD(in_child_namespace());
    chmod(DEVMEM, 0600);
    (void)!chown(DEVMEM, 0, 0);
    IN_CHILD({
        become_user_with_rawio();
        open_record("open-devmem-user-with-CAP_SYS_RAWIO-mode0600", DEVMEM, O_RDWR, "uid1000+CAP_SYS_RAWIO");
    });
    others();
    int fd = open(DEVMEM, O_RDWR);
    if (fd < 0)
        return;
    AS_USER(user_with_roots_fd(fd));
    close(fd);
}
