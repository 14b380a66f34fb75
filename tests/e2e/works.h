/* What threads do while they are watched: each function is a round, and returns 1 for a mishap. */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/sem.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MS 1000000L

static atomic_int over;
static atomic_ulong queued, seen, sum, alarms, knocks;

static void told(int number, siginfo_t *info, void *context)
{
    (void)number;
    (void)context;
    seen++;
    sum += (unsigned long)info->si_value.sival_int;
}

static void alarmed(int number)
{
    (void)number;
    alarms++;
}

static void knocked(int number)
{
    (void)number;
    knocks++;
}

static int busy(void)
{
    uint64_t x = 88172645463325252ULL;
    double real = 1.0;
    for (int i = 0; i < 100000; i++) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        real = real * 1.0000001 + (double)(x & 7);
    }
    static _Atomic uint64_t first;
    uint64_t bits, none = 0;
    memcpy(&bits, &real, 8);
    bits ^= x;
    return !atomic_compare_exchange_strong(&first, &none, bits) && none != bits;
}

static int napping(void)
{
    struct timespec nap = {0, 20 * MS}, left = {0, 0}, from, to;
    clock_gettime(CLOCK_MONOTONIC, &from);
    int failed = nanosleep(&nap, &left);
    clock_gettime(CLOCK_MONOTONIC, &to);
    return failed || (to.tv_sec - from.tv_sec) * 1000 * MS + to.tv_nsec - from.tv_nsec < 20 * MS;
}

static int polling(void)
{
    return poll(NULL, 0, 5) != 0;
}

static int selecting(void)
{
    sigset_t none;
    sigemptyset(&none);
    struct timespec nap = {0, 5 * MS};
    return pselect(0, NULL, NULL, NULL, &nap, &none) != 0;
}

static int epolling(void)
{
    static _Thread_local int fd = -1;
    struct epoll_event event;
    if (fd < 0)
        fd = epoll_create1(0);
    return epoll_wait(fd, &event, 1, 5) != 0;
}

static int awaiting(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR2);
    struct timespec nap = {0, 5 * MS};
    return sigtimedwait(&set, NULL, &nap) != -1 || errno != EAGAIN;
}

static int receiving(void)
{
    static _Thread_local int ends[2] = {-1, -1};
    struct timeval nap = {0, 5000};
    char byte;
    if (ends[0] < 0) {
        if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends))
            return 1;
        setsockopt(ends[0], SOL_SOCKET, SO_RCVTIMEO, &nap, sizeof nap);
    }
    return recv(ends[0], &byte, 1, 0) != -1 || errno != EAGAIN;
}

static int semaphores(void)
{
    static _Thread_local int id = -1;
    struct sembuf down = {0, -1, 0};
    struct timespec nap = {0, 5 * MS};
    if (id < 0 && (id = semget(IPC_PRIVATE, 1, 0600)) >= 0 && semtimedop(id, &down, 1, &nap) < 0
        && errno == EAGAIN)
        return 0;
    int bad = semtimedop(id, &down, 1, &nap) != -1 || errno != EAGAIN;
    if (over)
        semctl(id, 0, IPC_RMID);
    return bad;
}

static int locking(void)
{
    sem_t lock;
    sem_init(&lock, 0, 0);
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += 5 * MS;
    until.tv_sec += until.tv_nsec / (1000 * MS);
    until.tv_nsec %= 1000 * MS;
    return sem_timedwait(&lock, &until) != -1 || errno != ETIMEDOUT;
}

static int calling(void)
{
    static pid_t parent;
    pid_t found = getppid();
    int bad = parent && found != parent;
    parent = found;
    return bad;
}

/* A call that waits for the supervisor. */
static int looking(void)
{
    struct stat status;
    return fstat(0, &status) != 0 || !S_ISFIFO(status.st_mode);
}

static int ends[2];

static void *writing(void *unused)
{
    (void)unused;
    for (uint32_t i = 0; !over; i++) {
        if (write(ends[1], &i, sizeof i) != sizeof i)
            abort();
        usleep(i % 7 ? 0 : 500);
    }
    close(ends[1]);
    return NULL;
}

static int piping(void)
{
    static uint32_t next;
    static pthread_t writer;
    uint32_t got;
    if (!next && (pipe(ends) || pthread_create(&writer, NULL, writing, NULL)))
        abort();
    ssize_t size = read(ends[0], &got, sizeof got);
    return size ? size != sizeof got || got != next++ : !over;
}

/* Every queued signal arrives once, with its value; sigsuspend ends for each. */
static int signalled(void)
{
    static unsigned long values;
    sigset_t none;
    sigemptyset(&none);
    union sigval value = {.sival_int = (int)(queued % 1000)};
    unsigned long before = seen;
    if (pthread_sigqueue(pthread_self(), SIGRTMIN + 1, value))
        return 1;
    queued++;
    values += (unsigned long)value.sival_int;
    int bad = sigsuspend(&none) != -1 || errno != EINTR || seen != before + 1 || sum != values;
    return bad;
}

static pthread_t pauser;

static void *knocking(void *unused)
{
    (void)unused;
    while (!over) {
        unsigned long before = knocks;
        if (!pthread_kill(pauser, SIGRTMIN + 2)) {
            for (int i = 0; knocks == before && i < 20000; i++)
                usleep(50); /* the handler runs, or one second passes */
        }
    }
    return NULL;
}

/* pause() ends for each signal; none is lost. Lost would be a wait for ever. */
static int pausing(void)
{
    static pthread_t thread;
    sigset_t none, old;
    sigemptyset(&none);
    pthread_sigmask(SIG_SETMASK, &none, &old);
    if (!thread) {
        pauser = pthread_self();
        if (pthread_create(&thread, NULL, knocking, NULL))
            abort();
    }
    struct timespec from, to;
    clock_gettime(CLOCK_MONOTONIC, &from);
    int result = pause();
    clock_gettime(CLOCK_MONOTONIC, &to);
    return result != -1 || errno != EINTR || to.tv_sec - from.tv_sec > 1;
}

/* A thread that is interrupted a thousand times in a second: calls go on, by SA_RESTART. */
static int alarming(void)
{
    static int pipes[2];
    if (!alarms && !pipes[1]) {
        sigset_t set;
        sigemptyset(&set);
        sigaddset(&set, SIGALRM);
        pthread_sigmask(SIG_UNBLOCK, &set, NULL);
        struct itimerval every = {{0, 1000}, {0, 1000}};
        if (pipe(pipes) || setitimer(ITIMER_REAL, &every, NULL))
            abort();
    }
    uint32_t in = 42, out = 0;
    int status;
    pid_t child = vfork();
    if (!child) {
        usleep(3000);
        _exit(write(pipes[1], &in, sizeof in) != sizeof in);
    }
    int bad = read(pipes[0], &out, sizeof out) != sizeof out || out != in;
    return bad | (waitpid(child, &status, 0) != child || status);
}

static const struct work {
    const char *name;
    int (*round)(void);
} works[] = {
    {"busy", busy}, {"nanosleep", napping}, {"poll", polling}, {"pselect", selecting},
    {"epoll", epolling}, {"sigtimedwait", awaiting}, {"recv", receiving}, {"semop", semaphores},
    {"sem", locking}, {"getppid", calling}, {"fstat", looking}, {"pipe", piping}, {"sigsuspend", signalled},
    {"pause", pausing}, {"itimer", alarming},
};
