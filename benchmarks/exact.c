/*
 * What system calls cost a tool:  exact COUNT OTHER
 *
 * Prints a line for each: name, median and 99th percentile of COUNT calls in nanoseconds. OTHER is a file that the
 * machine has nothing to do with. Calls that take less than the clock are timed by the thousand.
 */
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096u
#define BATCH 1000u
#define SYSTEM_RAM (2u << 20) /* what a strict kernel lets nobody map */
#define PAGES 10000u

static int mem, other, zero;
static const char *path;
static struct stat status;

static uint64_t now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void call_getppid(void) { syscall(SYS_getppid); }

static void call_read(void)
{
	char byte;
	if (read(zero, &byte, 1) != 1)
		err(1, "/dev/zero");
}

static void call_clock(void)
{
	struct timespec t;
	syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &t);
}

static void call_seek_set(void) { lseek(other, 0, SEEK_SET); }
static void call_fstat_other(void) { fstat(other, &status); }
static void call_fstat_mem(void) { fstat(mem, &status); }
static void call_seek_end(void) { lseek(mem, 0, SEEK_END); }

static void map(int file, off_t offset, int flags)
{
	void *found = mmap(NULL, PAGE, PROT_READ, flags, file, offset);
	if (found != MAP_FAILED)
		munmap(found, PAGE);
}

static void call_mmap_other(void) { map(other, 0, MAP_PRIVATE); }
static void call_mmap_refused(void) { map(mem, SYSTEM_RAM, MAP_SHARED); }

static void call_mmap_anew(void)
{
	static unsigned page;
	map(mem, SYSTEM_RAM + PAGE * (++page % PAGES), MAP_SHARED);
}

static void call_ioctl(void)
{
	int count;
	ioctl(mem, FIONREAD, &count);
}

static void open_close(const char *name)
{
	int file = open(name, O_RDONLY | O_CLOEXEC);
	if (file < 0)
		err(1, "%s", name);
	close(file);
}

static void call_open_other(void) { open_close(path); }
static void call_open_mem(void) { open_close("/dev/mem"); }
static void call_stat_mem(void) { stat("/dev/mem", &status); }

static const struct {
	const char *name;
	void (*call)(void);
	unsigned batch;
} CALLS[] = {
	{ "getppid", call_getppid, BATCH },
	{ "read", call_read, BATCH },
	{ "clock_gettime", call_clock, BATCH },
	{ "lseek-set", call_seek_set, BATCH },
	{ "fstat-other", call_fstat_other, 1 },
	{ "mmap-other", call_mmap_other, 1 },
	{ "fstat-mem", call_fstat_mem, 1 },
	{ "mmap-refused", call_mmap_refused, 1 },
	{ "mmap-anew", call_mmap_anew, 1 },
	{ "lseek-end", call_seek_end, 1 },
	{ "ioctl", call_ioctl, 1 },
	{ "stat-mem", call_stat_mem, 1 },
	{ "open-mem", call_open_mem, 1 },
	{ "open-other", call_open_other, 1 },
};

static int later(const void *left, const void *right)
{
	uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
	return (a > b) - (a < b);
}

int main(int argc, char **argv)
{
	if (argc != 3)
		errx(2, "usage: exact COUNT OTHER");
	size_t count = strtoul(argv[1], NULL, 10);
	path = argv[2];
	mem = open("/dev/mem", O_RDWR | O_CLOEXEC);
	other = open(path, O_RDONLY | O_CLOEXEC);
	zero = open("/dev/zero", O_RDONLY | O_CLOEXEC);
	if (mem < 0 || other < 0 || zero < 0)
		err(1, "open");
	uint64_t *times = malloc(count * sizeof *times);
	if (times == NULL || count == 0)
		errx(1, "%zu calls", count);
	for (size_t i = 0; i < sizeof CALLS / sizeof *CALLS; i++) {
		for (size_t done = 0; done < count; done++) {
			uint64_t before = now();
			for (unsigned again = 0; again < CALLS[i].batch; again++)
				CALLS[i].call();
			times[done] = (now() - before) / CALLS[i].batch;
		}
		qsort(times, count, sizeof *times, later);
		printf("%s %lu %lu\n", CALLS[i].name, times[count / 2], times[count * 99 / 100]);
	}
	return 0;
}
