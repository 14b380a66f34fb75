/* A process with private copies of pages: `exact_private FILE OFFSET PAGES WORK...`.

   Copies the even pages of a private mapping. Each WORK runs in a thread of its own meanwhile, and counts what
   should not happen to it. Says "ready PID ADDRESS", then answers commands: "pages" (what each page is), "map" (map
   and copy anew, in the same place), "fork" (a child answers on), "lock" (mlockall), "write TEXT PATH", "stop" (ends
   the work: rounds and mishaps). */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "works.h"

#define PAGE 4096UL
#define MAGIC 0xC0B1ED00C0B1EDULL

static sigjmp_buf caught;
static siginfo_t fault;
static volatile uint64_t *pages;
static unsigned long count;
static const char *file;
static off_t offset;

static void bus(int number, siginfo_t *info, void *context)
{
    (void)context;
    fault = *info;
    siglongjmp(caught, number);
}

static void map(int fixed)
{
    int fd = open(file, O_RDWR);
    pages = mmap((void *)pages, count * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | fixed, fd, offset);
    if (fd < 0 || pages == MAP_FAILED)
        exit(2);
    close(fd);
}

static void copy(void)
{
    for (unsigned long i = 0; i < count; i += 2)
        pages[i * PAGE / 8] = MAGIC + i;
}

static void show_page(unsigned long i)
{
    volatile uint64_t *at = pages + i * PAGE / 8;
    if (!sigsetjmp(caught, 1))
        printf("%s,", *at == MAGIC + i ? "copy" : "file");
    else
        printf("%s%d,", fault.si_addr == (void *)at ? "" : "elsewhere ", fault.si_code);
}

static void show(void)
{
    for (unsigned long i = 0; i < count; i++)
        show_page(i);
    printf("\n");
}

struct thread {
    pthread_t id;
    const struct work *work;
    unsigned long rounds, mishaps;
    int error;
};

static void *run(void *argument)
{
    struct thread *self = argument;
    while (!over) {
        self->rounds++;
        errno = 0;
        if (self->work->round()) {
            self->mishaps++;
            self->error = errno;
        }
    }
    return NULL;
}

static void handlers(void)
{
    struct sigaction action = {.sa_sigaction = bus, .sa_flags = SA_SIGINFO};
    sigaction(SIGBUS, &action, NULL);
    action.sa_sigaction = told;
    sigaction(SIGRTMIN + 1, &action, NULL);
    struct sigaction knock = {.sa_handler = knocked};
    sigaction(SIGRTMIN + 2, &knock, NULL);
    struct sigaction timer = {.sa_handler = alarmed, .sa_flags = SA_RESTART};
    sigaction(SIGALRM, &timer, NULL);
    sigset_t set; /* for the threads that want them */
    sigfillset(&set);
    sigdelset(&set, SIGBUS);
    pthread_sigmask(SIG_SETMASK, &set, NULL);
}

static const char *written(char *text)
{
    char *path = strchr(text, ' ');
    path[strcspn(path, "\n")] = 0;
    int fd = open(path + 1, O_WRONLY);
    ssize_t size = write(fd, text, (size_t)(path - text));
    int failed = errno;
    close(fd);
    return size < 0 ? strerrorname_np(failed) : "ok";
}

static int answer(struct thread *threads, int running)
{
    char line[256];
    while (fgets(line, sizeof line, stdin)) {
        if (!strcmp(line, "pages\n")) {
            show();
        } else if (!strcmp(line, "lock\n")) {
            printf("%s\n", mlockall(MCL_FUTURE) ? "refused" : "ok");
        } else if (!strcmp(line, "map\n")) {
            map(MAP_FIXED);
            copy();
            printf("ok\n");
        } else if (!strncmp(line, "write ", 6)) {
            printf("%s\n", written(line + 6));
        } else if (!strcmp(line, "fork\n")) {
            int status;
            pid_t child = fork();
            if (!child)
                printf("child %d\n", getpid());
            else
                return waitpid(child, &status, 0) != child || status;
        } else {
            over = 1;
            for (int i = 0; i < running; i++) {
                pthread_join(threads[i].id, NULL);
                printf("%s %lu %lu %d,", threads[i].work->name, threads[i].rounds,
                       threads[i].mishaps, threads[i].error);
            }
            printf("\n");
            return 0;
        }
    }
    return 1;
}

int main(int argc, char **argv)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    count = strtoul(argv[3], NULL, 10);
    file = argv[1];
    offset = (off_t)strtoull(argv[2], NULL, 16);
    map(0);
    handlers();
    copy();
    struct thread threads[64] = {0};
    int running = 0;
    for (int i = 4; i < argc && running < 64; i++)
        for (unsigned long w = 0; w < sizeof works / sizeof *works; w++)
            if (!strcmp(works[w].name, argv[i])) {
                threads[running].work = &works[w];
                if (pthread_create(&threads[running].id, NULL, run, &threads[running]))
                    return 3;
                running++;
            }
    printf("ready %d %lx\n", getpid(), (unsigned long)pages);
    return answer(threads, running);
}
