/*
 * The floor: a server of /dev/fuse that does nothing but the kernel's round trip. One file, `mem`, LENGTH bytes of
 * which from OFFSET on are a mapping of this process; two threads; replies go out with one writev from the mapping.
 *
 *   floor FD OFFSET LENGTH FLAGS READAHEAD MAX_WRITE     FD: an open /dev/fuse that is mounted already
 *
 * FLAGS are the INIT flags that the other server asks for (64 bits), so that both get the same from the kernel.
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define WORKERS 2
#define FILE_ID 2
#define FILE_SIZE (1ull << 46)
#define LIFETIME 3600

static int device;
static uint64_t base, length, wanted;
static uint32_t readahead, max_write;
static unsigned char *memory;

static void reply(uint64_t unique, int error, const void *body, size_t size)
{
	struct fuse_out_header head = {.len = (uint32_t)(sizeof head + size), .error = -error, .unique = unique};
	struct iovec parts[2] = {{&head, sizeof head}, {(void *)body, size}};
	/* ENOENT: the caller was interrupted meanwhile. */
	if (writev(device, parts, size ? 2 : 1) < 0 && errno != ENOENT && errno != ENODEV)
		warn("reply");
}

static struct fuse_attr attr_of(uint64_t node)
{
	struct fuse_attr attr = {.ino = node, .nlink = 1, .uid = geteuid(), .gid = getegid(), .blksize = 4096};
	attr.mode = node == FUSE_ROOT_ID ? S_IFDIR | 0755 : S_IFREG | 0640;
	attr.size = node == FUSE_ROOT_ID ? 0 : FILE_SIZE;
	return attr;
}

static void on_init(uint64_t unique, const struct fuse_init_in *in)
{
	uint64_t offered = in->flags | (uint64_t)in->flags2 << 32;
	uint64_t flags = offered & wanted;
	struct fuse_init_out out = {.major = 7, .minor = in->minor < 38 ? in->minor : 38};
	out.max_readahead = in->max_readahead < readahead ? in->max_readahead : readahead;
	out.flags = (uint32_t)flags;
	out.flags2 = (uint32_t)(flags >> 32);
	out.max_background = 32;
	out.congestion_threshold = 24;
	out.max_write = max_write;
	out.time_gran = 1;
	out.max_pages = (uint16_t)(max_write / 4096);
	reply(unique, 0, &out, sizeof out);
}

static void on_lookup(uint64_t unique, const char *name)
{
	struct fuse_entry_out out = {.nodeid = FILE_ID, .entry_valid = LIFETIME, .attr_valid = LIFETIME};
	if (strcmp(name, "mem")) {
		reply(unique, ENOENT, NULL, 0);
		return;
	}
	out.attr = attr_of(FILE_ID);
	reply(unique, 0, &out, sizeof out);
}

static int inside(uint64_t offset, uint64_t size)
{
	return offset >= base && size <= length && offset - base <= length - size;
}

static void on_read(uint64_t unique, const struct fuse_read_in *in)
{
	if (inside(in->offset, in->size))
		reply(unique, 0, memory + (in->offset - base), in->size);
	else
		reply(unique, EFAULT, NULL, 0);
}

static void on_write(uint64_t unique, const struct fuse_write_in *in)
{
	struct fuse_write_out out = {.size = in->size};
	if (!inside(in->offset, in->size)) {
		reply(unique, EFAULT, NULL, 0);
		return;
	}
	memcpy(memory + (in->offset - base), in + 1, in->size);
	reply(unique, 0, &out, sizeof out);
}

static void serve(const struct fuse_in_header *in)
{
	const void *body = in + 1;
	switch (in->opcode) {
	case FUSE_INIT:
		on_init(in->unique, body);
		break;
	case FUSE_LOOKUP:
		on_lookup(in->unique, body);
		break;
	case FUSE_GETATTR: {
		struct fuse_attr_out out = {.attr_valid = LIFETIME, .attr = attr_of(in->nodeid)};
		reply(in->unique, 0, &out, sizeof out);
		break;
	}
	case FUSE_OPEN: {
		struct fuse_open_out out = {.fh = 1, .open_flags = FOPEN_DIRECT_IO};
		reply(in->unique, 0, &out, sizeof out);
		break;
	}
	case FUSE_READ:
		on_read(in->unique, body);
		break;
	case FUSE_WRITE:
		on_write(in->unique, body);
		break;
	case FUSE_RELEASE:
	case FUSE_FLUSH:
	case FUSE_DESTROY:
		reply(in->unique, 0, NULL, 0);
		break;
	case FUSE_FORGET:
	case FUSE_BATCH_FORGET:
	case FUSE_INTERRUPT:
		break;
	default:
		reply(in->unique, ENOSYS, NULL, 0);
	}
}

static void *work(void *unused)
{
	size_t size = max_write + 8192;
	struct fuse_in_header *buffer = malloc(size);
	(void)unused;
	if (buffer == NULL)
		err(1, "malloc");
	for (;;) {
		ssize_t done = read(device, buffer, size);
		if (done >= (ssize_t)sizeof *buffer)
			serve(buffer);
		else if (done >= 0 || errno == ENODEV)
			return NULL;
		else if (errno != EINTR && errno != EAGAIN && errno != ENOENT)
			err(1, "/dev/fuse");
	}
}

int main(int argc, char **argv)
{
	pthread_t threads[WORKERS];
	if (argc != 7)
		errx(2, "see the head of floor.c");
	device = atoi(argv[1]);
	base = strtoull(argv[2], NULL, 0);
	length = strtoull(argv[3], NULL, 0);
	wanted = strtoull(argv[4], NULL, 0);
	readahead = (uint32_t)strtoul(argv[5], NULL, 0);
	max_write = (uint32_t)strtoul(argv[6], NULL, 0);
	memory = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		err(1, "mmap");
	madvise(memory, length, MADV_NOHUGEPAGE); /* as the other server does */
	for (uint64_t page = 0; page < length; page += 4096)
		memcpy(memory + page, &page, sizeof page);
	for (int i = 0; i < WORKERS; i++)
		if (pthread_create(&threads[i], NULL, work, NULL))
			errx(1, "pthread_create");
	for (int i = 0; i < WORKERS; i++)
		pthread_join(threads[i], NULL);
	return 0;
}
