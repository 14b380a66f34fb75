/* Files and memory that the programs here look at in many processes. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PAGE = 4096, WORDS = PAGE / 8, MOST_VIEWS = 8, MOST_PROCESSES = 64 };

/* FILE@OFFSET[:rw]; with `:rw` pread and pwrite reach it too. */
struct view { const char *path; off_t offset; int rw, fd; volatile uint64_t *at; size_t length; };
static struct view views[MOST_VIEWS];
static int view_count;
static sigjmp_buf back;

static void on_fault(int number, siginfo_t *info, void *context)
{
    (void)number, (void)info, (void)context;
    siglongjmp(back, 1);
}

static void *shared(size_t size)
{
    void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED)
        exit(1);
    return at;
}

static void parse(char *text)
{
    struct view *view = views + view_count++;
    char *at = strrchr(text, '@'), *rest;
    if (!at || view_count > MOST_VIEWS)
        exit(2);
    *at = 0;
    view->path = text;
    view->offset = (off_t)strtoull(at + 1, &rest, 0);
    view->rw = !strcmp(rest, ":rw");
    view->fd = -1;
}

static int attach(struct view *view, size_t length)
{
    view->fd = open(view->path, O_RDWR | O_CLOEXEC);
    if (view->fd < 0)
        return -1;
    void *at = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED, view->fd, view->offset);
    if (at == MAP_FAILED) {
        close(view->fd);
        return -1;
    }
    view->at = at;
    view->length = length;
    return 0;
}

static void detach(struct view *view)
{
    munmap((void *)view->at, view->length);
    close(view->fd);
}
