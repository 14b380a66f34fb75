/* Many callers at once on /dev/mem: `exact_storm WHAT COUNT`. Silent when every answer is the one expected.

   threads  COUNT threads that stat, open, fstat, map and seek.
   closing  COUNT threads whose descriptors are closed and reused under them: EBADF, or an answer.
   killed   COUNT processes that are killed in the middle, and fork on the way.
   ticks    COUNT rounds under a timer of 20 kHz whose handler restarts calls: no EINTR.
   breaks   The same without SA_RESTART: EINTR is an answer.
   vforks   COUNT times vfork and exec of this program as `exact_storm once 1`.
   claims   COUNT threads that map and touch a board through one old descriptor, while a driver comes and
            goes, to the end of stdin; then the driver is gone. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#define RAM 0x100000
#define ROM 0xf0000
#define BOARD 0xd0000000
#define ROUNDS 50

static int allowed; /* an errno that may come at any time */
static int wrong;
static volatile int stop;
static volatile sig_atomic_t ticked;

/* The condition is evaluated before errno is looked at. */
static void expect(const char *what, int is)
{
    int number = errno;

    if (is || (allowed && number == allowed))
        return;
    __atomic_fetch_add(&wrong, 1, __ATOMIC_RELAXED);
    fprintf(stderr, "%s: %s\n", what, strerror(number));
}

static void look(int fd)
{
    struct stat shown;
    int failed = fstat(fd, &shown);

    expect("fstat", !failed);
    if (!failed)
        expect("fstat shows a device", S_ISCHR(shown.st_mode) && shown.st_rdev == makedev(1, 1));
    errno = 0;
    expect("seek", lseek(fd, 0, SEEK_END) < 0 && errno == EINVAL);
    errno = 0;
    void *ram = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, RAM);
    expect("map RAM", ram == MAP_FAILED && errno == EPERM);
    volatile char *rom = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, ROM);
    expect("map ROM", rom != MAP_FAILED);
    if (rom != MAP_FAILED) {
        (void)*rom;
        munmap((void *)rom, 4096);
    }
}

static void once(void)
{
    struct stat shown;
    int failed = stat("/dev/mem", &shown);

    expect("stat", !failed);
    if (!failed)
        expect("stat shows a device", S_ISCHR(shown.st_mode));
    int fd = open("/dev/mem", O_RDWR);
    expect("open", fd >= 0);
    if (fd >= 0) {
        look(fd);
        close(fd);
    }
}

static void *rounds(void *unused)
{
    for (int i = 0; i < ROUNDS; i++)
        once();
    return unused;
}

static void *asks(void *argument)
{
    int fd = *(int *)argument;
    struct stat shown;

    while (!stop) {
        errno = 0;
        expect("fstat under close", !fstat(fd, &shown) || errno == EBADF);
        void *page = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, fd, RAM);
        expect("map under close", page != MAP_FAILED || errno == EBADF || errno == EPERM || errno == ENODEV);
        if (page != MAP_FAILED)
            munmap(page, 4096);
        errno = 0;
        expect("seek under close", lseek(fd, 0, SEEK_END) >= 0 || errno == EBADF || errno == EINVAL);
    }
    return NULL;
}

static void closing(int count)
{
    static int fd;
    pthread_t threads[count];
    const char *names[] = {"/dev/mem", "/dev/null", "/proc/self/exe"};

    fd = open("/dev/mem", O_RDONLY);
    for (int i = 0; i < count; i++)
        pthread_create(&threads[i], NULL, asks, &fd);
    for (int i = 0; i < 300; i++) {
        close(fd);
        int next = open(names[i % 3], O_RDONLY);
        if (next != fd) {
            dup2(next, fd);
            close(next);
        }
    }
    stop = 1;
    for (int i = 0; i < count; i++)
        pthread_join(threads[i], NULL);
}

static void threads(int count)
{
    pthread_t all[count];

    for (int i = 0; i < count; i++)
        expect("pthread_create", !pthread_create(&all[i], NULL, rounds, NULL));
    for (int i = 0; i < count; i++)
        pthread_join(all[i], NULL);
}

static void killed(int count)
{
    for (int i = 0; i < count; i++) {
        int ends[2];
        char byte;
        expect("pipe", !pipe(ends));
        pid_t child = fork();
        if (child == 0) {
            signal(SIGCHLD, SIG_IGN); /* grandchildren are nobody's */
            if (write(ends[1], "x", 1) != 1)
                _exit(1);
            for (;;) {
                once();
                if (fork() == 0) {
                    once();
                    _exit(0);
                }
            }
        }
        expect("fork", child > 0);
        expect("read", read(ends[0], &byte, 1) == 1);
        for (volatile int spin = 0; spin < i * 997 % 100000; spin++)
            ;
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
        close(ends[0]);
        close(ends[1]);
    }
}

static __thread sigjmp_buf back;

static void gone(int number)
{
    siglongjmp(back, number);
}

static int touch(volatile int *page)
{
    if (sigsetjmp(back, 1))
        return 0;
    return *page + 1 != 0;
}

static void *maps(void *argument)
{
    int fd = *(int *)argument;

    for (int last = 0; !last;) {
        last = stop; /* from now on it is not refused */
        void *page = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, BOARD);
        expect("map a board", page != MAP_FAILED || (errno == EPERM && !last));
        if (page == MAP_FAILED)
            continue;
        expect("touch a board", touch(page) || !last);
        munmap(page, 4096);
    }
    return NULL;
}

static void claims(int count)
{
    struct sigaction action = {.sa_handler = gone};
    int fd = open("/dev/mem", O_RDONLY);
    pthread_t threads[count];
    char byte;

    sigaction(SIGBUS, &action, NULL);
    for (int i = 0; i < count; i++)
        pthread_create(&threads[i], NULL, maps, &fd);
    puts("started");
    fflush(stdout);
    while (read(0, &byte, 1) > 0)
        ;
    stop = 1;
    for (int i = 0; i < count; i++)
        pthread_join(threads[i], NULL);
}

static void tick(int number)
{
    ticked += number != 0;
}

static void ticks(int count, int flags)
{
    struct sigaction action = {.sa_handler = tick, .sa_flags = flags};
    struct itimerval often = {{0, 50}, {0, 50}}, never = {{0, 0}, {0, 0}};

    allowed = flags & SA_RESTART ? 0 : EINTR;
    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &often, NULL);
    for (int i = 0; i < count; i++)
        once();
    setitimer(ITIMER_REAL, &never, NULL);
    expect("ticks", ticked > count);
}

static int run_once(char *self)
{
    int status = 0;
    pid_t child = vfork();

    if (child == 0) {
        execl(self, self, "once", "1", NULL);
        _exit(127);
    }
    return child > 0 && waitpid(child, &status, 0) == child && status == 0;
}

static void vforks(int count, char *self)
{
    for (int i = 0; i < count; i++)
        expect("vfork and exec", run_once(self));
}

int main(int words, char **word)
{
    const char *what = words == 3 ? word[1] : "";
    int count = words == 3 ? atoi(word[2]) : 0;

    if (!strcmp(what, "threads"))
        threads(count);
    else if (!strcmp(what, "closing"))
        closing(count);
    else if (!strcmp(what, "killed"))
        killed(count);
    else if (!strcmp(what, "ticks"))
        ticks(count, SA_RESTART);
    else if (!strcmp(what, "breaks"))
        ticks(count, 0);
    else if (!strcmp(what, "claims"))
        claims(count);
    else if (!strcmp(what, "vforks"))
        vforks(count, word[0]);
    else if (!strcmp(what, "once"))
        once();
    else
        return 2;
    return wrong != 0;
}
