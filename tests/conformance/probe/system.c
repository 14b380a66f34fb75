/* Files, commands, the monitor, users. */
#include "probe.h"
#include <grp.h>
#include <linux/capability.h>
#include <poll.h>
#include <stdarg.h>
#include <sys/prctl.h>
#include <time.h>

const char *out_folder, *temporary = "/tmp";
static int monitor_fd = -1;
static const char PROMPT[] = "(qemu) ";

const char *form(const char *format, ...) {
    static char buffers[64][2048];
    static int next;
    char *buffer = buffers[next++ % COUNT(buffers)];
    va_list list;
    va_start(list, format);
    vsnprintf(buffer, sizeof buffers[0], format, list);
    va_end(list);
    return buffer;
}

char *slurp(const char *path, size_t *size) {
    int fd = open(path, O_RDONLY);
    if (fd < 0)
        return NULL;
    size_t capacity = 1 << 16, used = 0;
    char *bytes = malloc(capacity);
    for (;;) {
        if (used + PAGE > capacity)
            bytes = realloc(bytes, capacity *= 2);
        ssize_t got = read(fd, bytes + used, PAGE);
        if (got <= 0)
            break;
        used += got;
    }
    close(fd);
    bytes[used] = 0;
    if (size)
        *size = used;
    return bytes;
}

void spew(const char *name, const char *bytes, size_t size) {
    int fd = open(form("%s/%s", out_folder, name), O_CREAT | O_TRUNC | O_WRONLY, 0644);
    for (size_t done = 0; fd >= 0 && done < size;) {
        ssize_t written = write(fd, bytes + done, size - done);
        if (written <= 0)
            break;
        done += written;
    }
    if (fd >= 0)
        close(fd);
}

void snapshot(const char *path, const char *name) {
    size_t size = 0;
    char *bytes = slurp(path, &size);
    if (!bytes) {
        const char *why = form("<open/read failed: %s>\n", strerrorname_np(errno));
        spew(name, why, strlen(why));
        return;
    }
    spew(name, bytes, size);
    free(bytes);
}

void list_directory(const char *folder, const char *name, int recursive) {
    shell(form("ls -la%s %s/ > %s/%s 2>&1", recursive ? "R" : "", folder, out_folder, name));
}

void settle(int milliseconds) {
    const char *percent = getenv("PROBE_SLEEP");
    long wanted = milliseconds * (percent ? atol(percent) : 100) / 100;
    struct timespec time = {wanted / 1000, wanted % 1000 * 1000000L};
    nanosleep(&time, NULL);
}

int shell(const char *command) {
    int status = system(command);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

int shell_record(const char *name, const char *command) {
    const char *said = form("%s/sh.out", temporary);
    begin(name, "shell");
    text("cmd", command);
    int status = shell(form("(%s) >%s 2>&1", command, said));
    result(status, 0);
    char *output = slurp(said, NULL);
    if (output) {
        if (strlen(output) > 1500)
            output[1500] = 0;
        data_text(output);
        free(output);
    }
    end();
    return status;
}

int write_file(const char *name, const char *path, const char *value) {
    begin(name, "open+write");
    text("path", path);
    text("value", value);
    int fd = open(path, O_WRONLY);
    ssize_t written = fd < 0 ? -1 : write(fd, value, strlen(value));
    int error = written < 0 ? errno : 0;
    if (fd >= 0)
        close(fd);
    result(written, error);
    note(fd < 0 ? "open failed" : NULL);
    end();
    return -error;
}

void read_file(const char *name, const char *path) {
    char bytes[PAGE + 1];
    begin(name, "open+read");
    text("path", path);
    int fd = open(path, O_RDONLY);
    ssize_t got = fd < 0 ? -1 : read(fd, bytes, PAGE);
    answered(got);
    int binary = 0;
    for (ssize_t i = 0; i < got; i++)
        binary |= !bytes[i] || (unsigned char)bytes[i] > 126;
    bytes[got > 0 ? got : 0] = 0;
    if (binary)
        data_bytes(bytes, got > 64 ? 64 : got);
    else if (got >= 0)
        data_text(bytes);
    note(fd < 0 ? "open failed" : NULL);
    if (fd >= 0)
        close(fd);
    end();
}

void open_monitor(const char *path) {
    monitor_fd = open(path, O_RDWR | O_NOCTTY);
}

static int readable(int milliseconds) {
    struct pollfd wanted = {monitor_fd, POLLIN, 0};
    return poll(&wanted, 1, milliseconds) > 0;
}

/* What was said between the echo of the command, which the line editor repeats, and the prompt. */
static void strip(char *said) {
    char *start = strchr(said, '\n'), *to = said;
    for (char *from = start ? start + 1 : said; *from; from++)
        if (*from != '\r')
            *to++ = *from;
    *to = 0;
    if (to - said >= 7 && !strcmp(to - 7, PROMPT))
        to[-7] = 0;
}

void monitor(const char *command, char *said, size_t size) {
    char bytes[PAGE];
    size_t used = 0;
    said[0] = 0;
    if (monitor_fd < 0)
        return;
    while (readable(0) && read(monitor_fd, bytes, sizeof bytes) > 0)
        ;
    dprintf(monitor_fd, "%s\n", command);
    while (readable(4000)) {
        ssize_t got = read(monitor_fd, bytes, sizeof bytes);
        if (got <= 0)
            break;
        for (ssize_t i = 0; i < got && used + 1 < size; i++)
            said[used++] = bytes[i];
        said[used] = 0;
        /* A prompt that nothing follows is the one behind the answer. */
        if (used >= 7 && strchr(said, '\n') && !strcmp(said + used - 7, PROMPT) && !readable(20))
            break;
    }
    strip(said);
}

void monitor_record(const char *name, const char *command) {
    static char said[8192];
    monitor(command, said, sizeof said);
    begin(name, "qemu_monitor");
    text("cmd", command);
    result(0, 0);
    data_text(said);
    end();
}

int become_user(void) {
    setgroups(0, NULL);
    if (setresgid(1000, 1000, 1000) || setresuid(1000, 1000, 1000))
        return -1;
    prctl(PR_SET_DUMPABLE, 1);
    return 0;
}

void drop_capability(int number) {
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct sets[2];
    syscall(SYS_capget, &header, sets);
    sets[number / 32].effective &= ~(1u << number % 32);
    sets[number / 32].permitted &= ~(1u << number % 32);
    sets[number / 32].inheritable = 0;
    syscall(SYS_capset, &header, sets);
}
