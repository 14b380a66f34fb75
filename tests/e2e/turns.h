/* Two processes that pass a word to and fro. */
#include <sched.h>
#include <stdint.h>

/* Take every other of `turns` turns at `word`, which begins at 0: the first of two, or the second. */
static void take_turns(volatile uint64_t *word, int second, uint64_t turns)
{
    for (uint64_t turn = 0; turn < turns; turn++) {
        uint64_t mine = 2 * turn + (uint64_t)second;
        while (*word != mine)
            sched_yield();
        *word = mine + 1;
    }
}
