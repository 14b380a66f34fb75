/* Processes that open, map, load, store and unmap whatever is there, until the end of stdin.
 *
 *   visitors PROCESSES VIEW...
 *
 * A signal or an errno is an answer; a hang is none. Prints turns, mappings that were touched to the end, SIGBUS, and
 * refused opens or mmaps.
 */
#include "views.h"

struct tally { uint64_t turns, touched, faults, refused; };
static struct tally *tallies;
static volatile int *stop;

static void visit(struct view *view, struct tally *tally)
{
    if (attach(view, PAGE)) {
        tally->refused++;
        usleep(200);
        return;
    }
    if (sigsetjmp(back, 1)) {
        tally->faults++;
    } else {
        for (int n = 0; n < 200 && !*stop; n++) {
            (void)view->at[n % WORDS];
            view->at[(n + 7) % WORDS] = (uint64_t)n;
            sched_yield();
        }
        tally->touched++;
    }
    detach(view);
}

static int run(int processes)
{
    for (int n = 0; n < processes; n++)
        if (fork() == 0) {
            for (unsigned which = (unsigned)n; !*stop; which++, tallies[n].turns++)
                visit(views + which % (unsigned)view_count, tallies + n);
            _exit(0);
        }
    char byte;
    printf("ready\n");
    fflush(stdout);
    while (read(0, &byte, 1) > 0)
        ;
    *stop = 1;
    while (wait(NULL) > 0 || errno == EINTR)
        ;
    struct tally sum = {0};
    for (int n = 0; n < processes; n++) {
        sum.turns += tallies[n].turns;
        sum.touched += tallies[n].touched;
        sum.faults += tallies[n].faults;
        sum.refused += tallies[n].refused;
    }
    printf("%llu %llu %llu %llu\n", (unsigned long long)sum.turns, (unsigned long long)sum.touched,
           (unsigned long long)sum.faults, (unsigned long long)sum.refused);
    return 0;
}

int main(int count, char **words)
{
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
    sigaction(SIGBUS, &action, NULL);
    stop = shared(PAGE);
    tallies = shared(MOST_PROCESSES * sizeof *tallies);
    for (int n = 2; n < count; n++)
        parse(words[n]);
    int processes = count > 2 ? atoi(words[1]) : 0;
    return processes > 0 && processes <= MOST_PROCESSES ? run(processes) : 2;
}
