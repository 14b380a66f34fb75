/* One memory behind several files: /dev/mem, resource0, resource0_wc.
 *
 *   aliases pong TURNS VIEW VIEW
 *
 * Two processes count one word up in turns, each through its own view. Prints the last number.
 *
 *   aliases random SECONDS SEED PROCESSES PAGES VIEW...
 *
 * Processes load, store, pread, pwrite, msync, unmap and drop pages of the cache at random. Every word has a lock and
 * its value beside it, in memory that is the machine's business no more: the sequential model. What is read through any
 * view must be that. Words of one page have different owners at one time, so that pages are wanted by several at once.
 * Prints operations, wrong values, other failures; says of the first wrong values what they were.
 */
#include "views.h"
#include "turns.h"
#include <pthread.h>
#include <time.h>

enum { BATCH = 8, SHOWN = 20 };

struct cell { pthread_mutex_t lock; uint64_t value; };
struct tally { uint64_t turns, wrong, failures; };
static struct tally *tallies;

static int pong(uint64_t turns)
{
    if (attach(views, PAGE) || attach(views + 1, PAGE)) {
        perror("open and map");
        return 1;
    }
    *views[0].at = 0;
    pid_t child = fork();
    volatile uint64_t *ours = views[child == 0].at;
    take_turns(ours, child == 0, turns);
    if (child == 0)
        _exit(0);
    wait(NULL);
    printf("%llu\n", (unsigned long long)*ours);
    return 0;
}

static uint64_t dice;

static uint64_t roll(uint64_t sides)
{
    dice ^= dice << 13;
    dice ^= dice >> 7;
    dice ^= dice << 17;
    return (dice >> 11) % sides;
}

static void expect(struct tally *tally, const char *op, struct view *view, size_t word, uint64_t seen, uint64_t wanted)
{
    if (seen == wanted)
        return;
    if (tally->wrong++ < SHOWN)
        fprintf(stderr, "pid %d: %s of word %zu of %s: %#llx, not %#llx\n", (int)getpid(), op, word, view->path,
                (unsigned long long)seen, (unsigned long long)wanted);
}

/* A store of 1, 2, 4 or 8 bytes somewhere in the word; the model gets the same. */
static void store(struct view *view, size_t word, struct cell *cell)
{
    unsigned width = 1u << roll(4), at = (unsigned)roll(8 / width) * width;
    uint64_t value = roll(UINT64_MAX);
    volatile char *to = (volatile char *)(view->at + word) + at;
    switch (width) {
    case 1: *(volatile uint8_t *)to = (uint8_t)value; break;
    case 2: *(volatile uint16_t *)to = (uint16_t)value; break;
    case 4: *(volatile uint32_t *)to = (uint32_t)value; break;
    default: *(volatile uint64_t *)to = value;
    }
    memcpy((char *)&cell->value + at, &value, width);
}

/* A process that met a signal may have had the lock: the others go on. */
static void lock(struct cell *cell)
{
    if (pthread_mutex_lock(&cell->lock) == EOWNERDEAD)
        pthread_mutex_consistent(&cell->lock);
}

/* Some neighbouring words at once: their locks in order, one call, one comparison. */
static void transfer(struct tally *tally, struct view *view, struct cell *cells, size_t words, int writing)
{
    size_t count = 1 + roll(BATCH), first = roll(words - count + 1);
    uint64_t room[BATCH];
    off_t at = view->offset + (off_t)(8 * first);
    for (size_t n = 0; n < count; n++)
        lock(cells + first + n);
    if (writing)
        for (size_t n = 0; n < count; n++)
            cells[first + n].value = room[n] = roll(UINT64_MAX);
    ssize_t done = writing ? pwrite(view->fd, room, 8 * count, at) : pread(view->fd, room, 8 * count, at);
    if (done != (ssize_t)(8 * count)) {
        if (tally->failures++ < SHOWN)
            fprintf(stderr, "%s: %zd %s\n", writing ? "pwrite" : "pread", done, strerror(errno));
    } else if (!writing) {
        for (size_t n = 0; n < count; n++)
            expect(tally, "pread", view, first + n, room[n], cells[first + n].value);
    }
    for (size_t n = 0; n < count; n++)
        pthread_mutex_unlock(&cells[first + n].lock);
}

/* What must change nothing: write back, drop, throw out, map anew. */
static void disturb(struct tally *tally, struct view *view, size_t pages)
{
    char *at = (char *)view->at + roll(pages) * PAGE;
    switch (roll(6)) {
    case 0: msync(at, PAGE, roll(2) ? MS_SYNC : MS_SYNC | MS_INVALIDATE); break;
    case 1: madvise(at, PAGE, MADV_DONTNEED); break;
    case 2: madvise(at, PAGE, MADV_PAGEOUT); break;
    case 3: posix_fadvise(view->fd, view->offset, (off_t)(pages * PAGE), POSIX_FADV_DONTNEED); break;
    case 4: fsync(view->fd); break;
    default:
        detach(view);
        if (attach(view, pages * PAGE)) {
            fprintf(stderr, "%s: %s\n", view->path, strerror(errno));
            tally->failures++;
            _exit(1);
        }
    }
}

static void turn(struct tally *tally, struct cell *cells, size_t pages)
{
    struct view *view = views + roll((uint64_t)view_count);
    size_t words = pages * WORDS, word = roll(words);
    uint64_t what = roll(100);
    if (what < 4) {
        disturb(tally, view, pages);
    } else if (what < 24 && view->rw) {
        transfer(tally, view, cells, words, what < 14);
    } else {
        lock(cells + word);
        if (what & 1)
            store(view, word, cells + word);
        if (!(what & 1) || roll(2))
            expect(tally, "load", view, word, view->at[word], cells[word].value);
        pthread_mutex_unlock(&cells[word].lock);
    }
    tally->turns++;
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void work(int number, double until, uint64_t seed, struct cell *cells, size_t pages)
{
    struct tally *tally = tallies + number;
    dice = seed * 0x9e3779b97f4a7c15u + (uint64_t)number * 0xbf58476d1ce4e5b9u + 1;
    for (int n = 0; n < view_count; n++)
        if (attach(views + n, pages * PAGE)) {
            fprintf(stderr, "%s: %s\n", views[n].path, strerror(errno));
            tally->failures++;
            _exit(1);
        }
    if (sigsetjmp(back, 1)) {
        fprintf(stderr, "pid %d: a signal\n", (int)getpid());
        tally->failures++;
        _exit(1);
    }
    while (now() < until)
        for (int n = 0; n < 64; n++)
            turn(tally, cells, pages);
    _exit(0);
}

static int at_random(double seconds, uint64_t seed, int processes, size_t pages)
{
    size_t words = pages * WORDS;
    struct cell *cells = shared(words * sizeof *cells);
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    if (attach(views, pages * PAGE)) {
        perror(views[0].path);
        return 1;
    }
    for (size_t n = 0; n < words; n++) {
        pthread_mutex_init(&cells[n].lock, &attributes);
        cells[n].value = views[0].at[n];
    }
    detach(views);
    for (int n = 0; n < processes; n++)
        if (fork() == 0)
            work(n, now() + seconds, seed, cells, pages);
    struct tally sum = {0};
    while (wait(NULL) > 0 || errno == EINTR)
        ;
    for (int n = 0; n < processes; n++) {
        sum.turns += tallies[n].turns;
        sum.wrong += tallies[n].wrong;
        sum.failures += tallies[n].failures;
    }
    for (int n = 0; n < view_count; n++) { /* nothing is lost at the end either */
        if (attach(views + n, pages * PAGE))
            return 1;
        for (size_t word = 0; word < words; word++)
            expect(&sum, "last load", views + n, word, views[n].at[word], cells[word].value);
        detach(views + n);
    }
    printf("%llu %llu %llu\n", (unsigned long long)sum.turns, (unsigned long long)sum.wrong,
           (unsigned long long)sum.failures);
    return 0;
}

int main(int count, char **words)
{
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
    sigaction(SIGBUS, &action, NULL);
    tallies = shared(MOST_PROCESSES * sizeof *tallies);
    if (count < 3)
        return 2;
    int first = !strcmp(words[1], "random") ? 6 : 3;
    for (int n = first; n < count; n++)
        parse(words[n]);
    if (!strcmp(words[1], "pong") && view_count == 2)
        return pong(strtoull(words[2], NULL, 0));
    if (!strcmp(words[1], "random") && view_count && atoi(words[4]) <= MOST_PROCESSES)
        return at_random(atof(words[2]), strtoull(words[3], NULL, 0), atoi(words[4]), (size_t)atoi(words[5]));
    return 2;
}
