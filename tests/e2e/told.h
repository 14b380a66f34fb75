/* A program that does what it is told, one command a line, and answers a line each: what such programs share. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CHILDREN = 64 };

static struct { pid_t pid; FILE *to, *from; } children[CHILDREN];
static int child_count;
static FILE *in, *out;
static sigjmp_buf back;
static siginfo_t fault;

static void on_fault(int number, siginfo_t *info, void *context)
{
    (void)number, (void)context;
    fault = *info;
    siglongjmp(back, 1);
}

static void ok(long long value) { fprintf(out, "ok %lld\n", value); }
static void refused(void) { fprintf(out, "err %d\n", errno); }

static void data(const void *bytes, size_t length)
{
    fprintf(out, "data ");
    for (size_t at = 0; at < length; at++)
        fprintf(out, "%02x", ((const unsigned char *)bytes)[at]);
    fprintf(out, "\n");
}

static uint64_t load(const volatile void *at, unsigned width)
{
    switch (width) {
    case 1: return *(const volatile uint8_t *)at;
    case 2: return *(const volatile uint16_t *)at;
    case 4: return *(const volatile uint32_t *)at;
    default: return *(const volatile uint64_t *)at;
    }
}

static void store(volatile void *at, unsigned width, uint64_t value)
{
    switch (width) {
    case 1: *(volatile uint8_t *)at = (uint8_t)value; break;
    case 2: *(volatile uint16_t *)at = (uint16_t)value; break;
    case 4: *(volatile uint32_t *)at = (uint32_t)value; break;
    default: *(volatile uint64_t *)at = value; break;
    }
}

static void do_fork(void)
{
    int down[2], up[2];
    if (pipe2(down, O_CLOEXEC) || pipe2(up, O_CLOEXEC))
        abort();
    fflush(out);
    pid_t pid = fork();
    if (pid < 0) {
        refused();
        return;
    }
    if (pid == 0) {
        in = fdopen(down[0], "r");
        out = fdopen(up[1], "w");
        close(down[1]);
        close(up[0]);
        for (; child_count > 0; child_count--) /* or elder siblings would not see the end of their input */
            if (children[child_count - 1].pid) {
                fclose(children[child_count - 1].to);
                fclose(children[child_count - 1].from);
            }
        return;
    }
    close(down[0]);
    close(up[1]);
    children[child_count].pid = pid;
    children[child_count].to = fdopen(down[1], "w");
    children[child_count].from = fdopen(up[0], "r");
    ok(child_count++);
}
