/* Maps the page at ADDRESS of FILE, touches it for a while, lets it go; again and again for SECONDS.
 * Prints how often it had the page, how often not; `lost` when a page that it had was taken away. */
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static sigjmp_buf back;

static void bus(int number)
{
    (void)number;
    siglongjmp(back, 1);
}

static int touched(volatile uint32_t *word)
{
    if (sigsetjmp(back, 1))
        return 0;
    (void)*word;
    return 1;
}

static double now(void)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (double)at.tv_sec + (double)at.tv_nsec * 1e-9;
}

int main(int count, char **words)
{
    if (count != 4)
        return 2;
    struct sigaction action = {.sa_handler = bus};
    sigaction(SIGBUS, &action, NULL);
    double end = now() + atof(words[3]);
    struct timespec moment = {.tv_nsec = 200000};
    unsigned had = 0, refused = 0, lost = 0;
    while (now() < end) {
        int fd = open(words[1], O_RDWR);
        char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)strtoull(words[2], NULL, 0));
        if (fd < 0)
            return 1;
        if (page == MAP_FAILED) {
            refused++;
            close(fd);
            continue;
        }
        if (touched((volatile uint32_t *)page)) {
            had++;
            for (int turn = 0; turn < 10; turn++) {
                nanosleep(&moment, NULL);
                lost += !touched((volatile uint32_t *)page);
            }
        } else {
            refused++; /* without the exact layer */
        }
        munmap(page, 4096);
        close(fd);
        nanosleep(&moment, NULL);
    }
    printf("had %u refused %u lost %u\n", had, refused, lost);
    return lost != 0;
}
