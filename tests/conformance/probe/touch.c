/* Loads and stores, and the signals that they meet. */
#include "probe.h"

sigjmp_buf escape;
volatile sig_atomic_t guarded;
siginfo_t caught;

static void on_signal(int signo, siginfo_t *info, void *context) {
    (void)context;
    if (!guarded) {
        signal(signo, SIG_DFL);
        raise(signo);
        return;
    }
    caught = *info;
    siglongjmp(escape, 1);
}

void catch_signals(void) {
    struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_NODEFER};
    sigaction(SIGBUS, &action, NULL);
    sigaction(SIGSEGV, &action, NULL);
    signal(SIGPIPE, SIG_IGN);
}

static u64 load(volatile void *place, int width) {
    switch (width) {
    case 1:
        return *(volatile uint8_t *)place;
    case 2:
        return *(volatile uint16_t *)place;
    case 4:
        return *(volatile uint32_t *)place;
    default:
        return *(volatile uint64_t *)place;
    }
}

static void store(volatile void *place, int width, u64 value) {
    switch (width) {
    case 1:
        *(volatile uint8_t *)place = value;
        break;
    case 2:
        *(volatile uint16_t *)place = value;
        break;
    case 4:
        *(volatile uint32_t *)place = value;
        break;
    default:
        *(volatile uint64_t *)place = value;
        break;
    }
}

static void begin_touch(const char *name, const char *op, size_t offset, int width, u64 phys) {
    begin(name, op);
    hex("phys", phys + offset);
    hex("off", offset);
    integer("width", width);
}

int touch_read(const char *name, void *base, size_t offset, int width, u64 phys, const char *said) {
    volatile u64 value = 0;
    begin_touch(name, "touch_read", offset, width, phys);
    int signo = TRY(value = load((char *)base + offset, width));
    result(signo ? -1 : 0, 0);
    if (signo) {
        signal_field(base, phys);
    } else {
        u64 loaded = value;
        data_bytes(&loaded, width);
    }
    note(said);
    end();
    return signo;
}

int touch_write(const char *name, void *base, size_t offset, int width, u64 value, u64 phys, const char *said) {
    volatile u64 back = 0;
    begin_touch(name, "touch_write", offset, width, phys);
    hex("value", value);
    int signo = TRY(store((char *)base + offset, width, value));
    result(signo ? -1 : 0, 0);
    if (signo)
        signal_field(base, phys);
    else if (!TRY(back = load((char *)base + offset, width)))
        hex("readback", back);
    note(said);
    end();
    return signo;
}
