/*
 * Processes that have files mapped, and look at a page of each again and again, until they are killed for it.
 *
 *   crowd COUNT FILE...     says `ready` when all have stored to all; `N` when none is left: SIGBUS ended N of them
 */
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096
#define MOST 64
#define PAUSE 5000 /* microseconds between two looks */

static void look(char **paths, int count, int told)
{
	volatile unsigned char *pages[MOST];
	for (int i = 0; i < count; i++) {
		int file = open(paths[i], O_RDWR);
		pages[i] = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
		if (file < 0 || pages[i] == MAP_FAILED)
			err(2, "%s", paths[i]);
		close(file);
		pages[i][0] = 1;
	}
	if (write(told, ".", 1) != 1)
		_exit(2);
	for (;; usleep(PAUSE))
		for (int i = 0; i < count; i++)
			if (pages[i][0] != 1)
				_exit(1);
}

int main(int argc, char **argv)
{
	int ready[2], status, dead = 0, count = argc > 2 ? atoi(argv[1]) : 0;
	struct rlimit none = {0, 0};
	char byte;
	if (count < 1 || argc - 2 > MOST || pipe(ready) || setrlimit(RLIMIT_CORE, &none))
		errx(2, "crowd COUNT FILE...");
	for (int i = 0; i < count; i++)
		if (!fork())
			look(argv + 2, argc - 2, ready[1]);
	for (int i = 0; i < count; i++)
		if (read(ready[0], &byte, 1) != 1)
			return 2;
	puts("ready");
	fflush(stdout);
	while (wait(&status) > 0)
		dead += WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS;
	printf("%d\n", dead);
	return 0;
}
