/* Maps the page of physical memory at ADDRESS, prints where, and reads a word of it again and again. */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>

int main(int count, char **words)
{
    if (count != 2)
        return 2;
    /* Yama may allow a tracer that is not our parent only if we say so. */
    prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0);
    int fd = open("/dev/mem", O_RDWR | O_SYNC);
    char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)strtoull(words[1], NULL, 0));
    if (page == MAP_FAILED)
        return 1;
    printf("%p\n", (void *)page);
    fflush(stdout);
    struct timespec moment = {.tv_nsec = 1000000};
    for (;;) {
        (void)*(volatile uint32_t *)(page + 0x40);
        nanosleep(&moment, NULL);
    }
}
