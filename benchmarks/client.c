/*
 * The client of every measurement: one small program for all servers, so that its own cost is equal.
 *
 *   client pread PATH OFFSET LENGTH UNIT STEP COUNT SEED   COUNT preads of UNIT bytes at random multiples of STEP
 *   client fault PATH OFFSET LENGTH UNIT STEP COUNT SEED   COUNT first touches of a mapping at random multiples of STEP
 *   client seq   PATH OFFSET LENGTH UNIT STEP COUNT SEED   COUNT preads of UNIT bytes, one STEP behind the other
 *   client hold  PATH OFFSET LENGTH PROCESSES              map and touch, say "ready", keep it until stdin ends
 *
 * OFFSET is where the data begins in the file, LENGTH how much there is; no place is taken twice. The first three
 * print the nanoseconds of the loop and a checksum. Each run opens the file anew, which drops what is cached of it.
 */
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096u

static uint64_t now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* splitmix64: the same order of pages for every server. */
static uint64_t next_random(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15u;
	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

/* `count` different numbers below `limit`, in random order. */
static uint32_t *shuffled(size_t limit, size_t count, uint64_t seed)
{
	uint32_t *order = malloc(limit * sizeof *order);
	if (order == NULL || count > limit)
		errx(1, "%zu different places out of %zu", count, limit);
	for (size_t i = 0; i < limit; i++)
		order[i] = (uint32_t)i;
	for (size_t i = 0; i < count; i++) {
		size_t j = i + next_random(&seed) % (limit - i);
		uint32_t swap = order[i];
		order[i] = order[j];
		order[j] = swap;
	}
	return order;
}

static unsigned char *map_window(int fd, uint64_t offset, size_t length)
{
	unsigned char *at = mmap(NULL, length, PROT_READ, MAP_SHARED, fd, (off_t)offset);
	if (at == MAP_FAILED)
		err(1, "mmap");
	if (madvise(at, length, MADV_RANDOM))
		err(1, "madvise");
	return at;
}

static void read_exactly(int fd, void *buffer, size_t size, uint64_t at)
{
	ssize_t done = pread(fd, buffer, size, (off_t)at);
	if (done != (ssize_t)size)
		err(1, "pread of %zu bytes at %#llx: %zd", size, (unsigned long long)at, done);
}

static int hold(int fd, uint64_t offset, size_t length, int processes)
{
	int ready[2];
	char byte = 0;
	if (pipe(ready))
		err(1, "pipe");
	for (int i = 0; i < processes; i++) {
		pid_t child = fork();
		if (child < 0)
			err(1, "fork");
		if (child == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			unsigned char *at = map_window(fd, offset, length);
			volatile unsigned char sum = 0;
			for (size_t page = 0; page < length; page += PAGE)
				sum += at[page];
			if (write(ready[1], &byte, 1) != 1)
				_exit(1);
			pause();
			_exit(0);
		}
	}
	for (int i = 0; i < processes; i++)
		if (read(ready[0], &byte, 1) != 1)
			errx(1, "a holder ended");
	puts("ready");
	fflush(stdout);
	while (read(0, &byte, 1) > 0)
		;
	kill(0, SIGKILL); /* it leads a process group of its own */
	return 0;
}

int main(int argc, char **argv)
{
	if (argc < 6)
		errx(2, "see the head of client.c");
	const char *mode = argv[1];
	uint64_t offset = strtoull(argv[3], NULL, 0);
	size_t length = strtoull(argv[4], NULL, 0);
	size_t unit = strtoull(argv[5], NULL, 0);
	int fd = open(argv[2], O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		err(1, "%s", argv[2]);
	if (!strcmp(mode, "hold"))
		return hold(fd, offset, length, (int)unit);
	if (argc < 9)
		errx(2, "see the head of client.c");
	size_t step = strtoull(argv[6], NULL, 0);
	size_t count = strtoull(argv[7], NULL, 0);
	uint64_t seed = strtoull(argv[8], NULL, 0);
	uint64_t sum = 0, start, end;

	if (!strcmp(mode, "pread")) {
		uint32_t *order = shuffled(length / step, count, seed);
		unsigned char *buffer = malloc(unit);
		posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM);
		start = now();
		for (size_t i = 0; i < count; i++) {
			read_exactly(fd, buffer, unit, offset + (uint64_t)order[i] * step);
			sum += buffer[0];
		}
		end = now();
	} else if (!strcmp(mode, "fault")) {
		uint32_t *order = shuffled(length / step, count, seed);
		unsigned char *at = map_window(fd, offset, length);
		start = now();
		for (size_t i = 0; i < count; i++)
			sum += ((volatile unsigned char *)at)[order[i] * step];
		end = now();
	} else if (!strcmp(mode, "seq")) {
		unsigned char *buffer = malloc(unit);
		memset(buffer, 0, unit);
		start = now();
		for (size_t i = 0; i < count; i++) {
			read_exactly(fd, buffer, unit, offset + i * step % length);
			sum += buffer[0];
		}
		end = now();
	} else {
		errx(2, "no mode %s", mode);
	}
	printf("%llu %llu\n", (unsigned long long)(end - start), (unsigned long long)sum);
	return 0;
}
