#include "child.h"

struct report {
    int signo, code;
    u32 word;
};

static void serve(volatile u32 *place, int in, int out, int handles_signals) {
    char request;
    if (!handles_signals) {
        signal(SIGBUS, SIG_DFL);
        signal(SIGSEGV, SIG_DFL);
    }
    while (read(in, &request, 1) == 1 && request != 'q') {
        volatile u32 word = 0;
        int signo = 0;
        if (handles_signals)
            signo = TRY(word = *place);
        else
            word = *place;
        struct report report = {signo, signo ? caught.si_code : 0, word};
        (void)!write(out, &report, sizeof report);
    }
    _exit(0);
}

void child_start(struct child *child, void *place, int handles_signals) {
    int to[2], from[2];
    (void)!pipe(to);
    (void)!pipe(from);
    fflush(NULL);
    child->pid = fork();
    if (!child->pid) {
        close(to[1]);
        close(from[0]);
        serve(place, to[0], from[1], handles_signals);
    }
    close(to[0]);
    close(from[1]);
    child->to = to[1];
    child->from = from[0];
}

static void died(struct child *child) {
    int status = 0;
    waitpid(child->pid, &status, 0);
    child->pid = 0;
    result(-1, 0);
    text("wait_status", WIFSIGNALED(status) ? strsignal(WTERMSIG(status)) : "exited");
    integer("termsig", WIFSIGNALED(status) ? WTERMSIG(status) : 0);
}

void child_touch(struct child *child, const char *name, const char *said) {
    struct report report;
    begin(name, "child_touch_read");
    (void)!write(child->to, "t", 1);
    if (read(child->from, &report, sizeof report) != sizeof report) {
        died(child);
    } else {
        result(report.signo ? -1 : 0, 0);
        if (report.signo)
            signal_of_child(report.signo, report.code);
        else
            data_bytes(&report.word, sizeof report.word);
    }
    note(said);
    end();
}

void child_end(struct child *child) {
    if (child->pid > 0) {
        (void)!write(child->to, "q", 1);
        waitpid(child->pid, NULL, 0);
    }
    close(child->to);
    close(child->from);
}
