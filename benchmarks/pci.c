/*
 * The client of the PCI measurements.
 *
 *   pci absent DIR                    look up all 65,536 functions of domain 0 in DIR, in random order, twice
 *   pci alternate A AT B AT ROUNDS    a store through a mapping of A, then one through a mapping of B, ROUNDS times
 *   pci parts A AT B AT ROUNDS        a store through a mapping of B, then a pread of A; and the preads alone
 *
 * A and B are files that show the same page, each at its offset AT. Nanoseconds are printed: of the first and the second
 * pass and how many functions were absent; of all rounds; of all stores, of the preads that recall a page, and of preads
 * that do not. A value that is not what was stored last ends the program.
 */
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096u
#define FUNCTIONS 65536u
#define WARM 64u

static uint64_t now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Every number below FUNCTIONS once: an odd factor permutes them. */
static unsigned pass(int directory)
{
	char name[16];
	unsigned absent = 0;
	for (unsigned i = 0; i < FUNCTIONS; i++) {
		unsigned which = (i * 40503u + 12345u) % FUNCTIONS;
		snprintf(name, sizeof name, "0000:%02x:%02x.%x", which >> 8, which >> 3 & 31, which & 7);
		absent += faccessat(directory, name, F_OK, AT_SYMLINK_NOFOLLOW) != 0;
	}
	return absent;
}

static int absent(const char *path)
{
	int directory = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (directory < 0)
		err(1, "%s", path);
	uint64_t start = now();
	unsigned first = pass(directory);
	uint64_t middle = now();
	unsigned second = pass(directory);
	uint64_t end = now();
	if (first != second)
		errx(1, "%u functions were absent first, then %u", first, second);
	printf("%llu %llu %u\n", (unsigned long long)(middle - start), (unsigned long long)(end - middle), first);
	return 0;
}

struct place {
	int fd;
	off_t at;
	volatile uint64_t *words;
};

static struct place map_page(const char *path, const char *at)
{
	struct place place = { .fd = open(path, O_RDWR | O_SYNC | O_CLOEXEC), .at = strtoll(at, NULL, 0) };
	if (place.fd < 0)
		err(1, "%s", path);
	place.words = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, place.fd, place.at);
	if (place.words == MAP_FAILED)
		err(1, "mmap %s", path);
	return place;
}

static void expect(uint64_t found, uint64_t wanted, const char *where)
{
	if (found != wanted)
		errx(1, "stale: %s shows %llu, not %llu", where, (unsigned long long)found, (unsigned long long)wanted);
}

static uint64_t pread_word(struct place *place)
{
	uint64_t word;
	if (pread(place->fd, &word, sizeof word, place->at) != sizeof word)
		err(1, "pread");
	return word;
}

/* The store is the first touch after a recall: one fault. The load behind it finds the page there. */
static int alternate(struct place *a, struct place *b, uint64_t rounds)
{
	uint64_t start = 0;
	for (uint64_t i = 1; i <= rounds + WARM; i++) {
		if (i == WARM + 1)
			start = now();
		a->words[0] = i;
		if (i > 1)
			expect(a->words[1], i - 1, "A");
		b->words[1] = i;
		expect(b->words[0], i, "B");
	}
	printf("%llu\n", (unsigned long long)(now() - start));
	return 0;
}

static int parts(struct place *a, struct place *b, uint64_t rounds)
{
	uint64_t stores = 0, recalls = 0, start, middle;
	a->words[2] = 0; /* both have mapped it: nobody is alone */
	for (uint64_t i = 1; i <= rounds + WARM; i++) {
		start = now();
		b->words[0] = i;
		middle = now();
		expect(pread_word(a), i, "A");
		if (i > WARM) {
			stores += middle - start;
			recalls += now() - middle;
		}
	}
	start = now();
	for (uint64_t i = 0; i < rounds; i++)
		expect(pread_word(a), rounds + WARM, "A");
	printf("%llu %llu %llu\n", (unsigned long long)stores, (unsigned long long)recalls,
	       (unsigned long long)(now() - start));
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], "absent"))
		return absent(argv[2]);
	if (argc != 7)
		errx(2, "see the head of pci.c");
	struct place a = map_page(argv[2], argv[3]), b = map_page(argv[4], argv[5]);
	uint64_t rounds = strtoull(argv[6], NULL, 0);
	return strcmp(argv[1], "parts") ? alternate(&a, &b, rounds) : parts(&a, &b, rounds);
}
