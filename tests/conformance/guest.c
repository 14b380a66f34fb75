/* What the probe calls in the guest: modprobe and rmmod, through the machine's control socket, and sleep,
 * for which there is no reason here. Its name says which. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/socket.h>
#include <sys/un.h>

/* One verb; the answer is one line. */
static int ask(const char *verb, const char *module, char *answer, size_t size) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const char *path = getenv("FAKEDEV_CONTROL");
    if (!path || strlen(path) >= sizeof address.sun_path)
        return -1;
    strcpy(address.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address))
        return -1;
    dprintf(fd, "{\"verb\":\"%s\",\"args\":{\"name\":\"%s\"}}\n", verb, module);
    size_t used = 0;
    while (used + 1 < size) {
        ssize_t got = read(fd, answer + used, size - used - 1);
        if (got <= 0)
            break;
        used += got;
        if (answer[used - 1] == '\n')
            break;
    }
    answer[used] = 0;
    close(fd);
    return used ? 0 : -1;
}

int main(int argc, char **argv) {
    const char *slash = strrchr(argv[0], '/');
    const char *name = slash ? slash + 1 : argv[0];
    if (!strcmp(name, "sleep"))
        return 0;
    static char answer[65536];
    int failed = 0;
    for (int i = 1; i < argc; i++) {
        if (argv[i][0] == '-')
            continue;
        if (ask(name, argv[i], answer, sizeof answer) || !strstr(answer, "\"ok\":true")) {
            fprintf(stderr, "%s: can't %s module '%s': %s", name, !strcmp(name, "rmmod") ? "unload" : "load",
                    argv[i], answer[0] ? answer : "no machine answers\n");
            failed = 1;
        }
    }
    return failed;
}
