/* A process that inherited a mapping, and loads a word of it when it is asked to. */
#ifndef CHILD_H
#define CHILD_H
#include "probe.h"

struct child {
    pid_t pid;
    int to, from;
};
void child_start(struct child *child, void *place, int handles_signals);
void child_touch(struct child *child, const char *name, const char *said);
void child_end(struct child *child);
#endif
