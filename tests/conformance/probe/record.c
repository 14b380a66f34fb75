/* Records as JSON. */
#include "probe.h"
#include <inttypes.h>
#include <stdarg.h>

const char *phase = "init";
static const char *configuration;
static int records_fd = -1, kmsg_fd = -1;
static char *line;
static size_t used;
static const size_t capacity = 1 << 20;
static int in_arguments, arguments, has_signal, has_data, has_note, made;

void open_records(const char *config, const char *path) {
    configuration = config;
    line = malloc(capacity);
    records_fd = open(path, O_WRONLY | O_NOCTTY | O_APPEND);
    if (!line || records_fd < 0) {
        perror(path);
        exit(1);
    }
    kmsg_fd = open("/dev/kmsg", O_RDONLY | O_NONBLOCK);
    lseek(kmsg_fd, 0, SEEK_END);
}

void raw(const char *format, ...) {
    va_list list;
    va_start(list, format);
    int size = vsnprintf(line + used, capacity - used, format, list);
    va_end(list);
    if (size > 0)
        used += (size_t)size < capacity - used ? (size_t)size : capacity - used - 1;
}

static void string(const char *value) {
    raw("\"");
    for (; *value; value++) {
        unsigned char c = *value;
        if (c == '"' || c == '\\')
            raw("\\%c", c);
        else if (c == '\n')
            raw("\\n");
        else if (c == '\t')
            raw("\\t");
        else if (c < 32 || c > 126)
            raw("\\u%04x", c);
        else
            raw("%c", c);
    }
    raw("\"");
}

static void error_field(int error) {
    raw(",\"errno\":");
    if (!error) {
        raw("null");
        return;
    }
    const char *name = strerrorname_np(error);
    string(name ? name : form("E%d", error));
}

void begin(const char *name, const char *op) {
    used = 0;
    raw("{\"config\":");
    string(configuration);
    raw(",\"phase\":");
    string(phase);
    raw(",\"case\":");
    string(name);
    raw(",\"op\":");
    string(op);
    raw(",\"args\":{");
    in_arguments = 1;
    arguments = has_signal = has_data = has_note = 0;
}

void key(const char *field) {
    if (!in_arguments || arguments++)
        raw(",");
    string(field);
    raw(":");
}

void hex(const char *field, u64 value) {
    key(field);
    raw("\"0x%" PRIx64 "\"", value);
}

void integer(const char *field, long long value) {
    key(field);
    raw("%lld", value);
}

void text(const char *field, const char *value) {
    key(field);
    string(value);
}

static void end_arguments(void) {
    if (in_arguments)
        raw("}");
    in_arguments = 0;
}

void result(long long value, int error) {
    end_arguments();
    raw(",\"result\":%lld", value);
    error_field(error);
}

void result_text(const char *value) {
    end_arguments();
    raw(",\"result\":");
    string(value);
    error_field(0);
}

void answered(long long value) {
    result(value, value < 0 ? errno : 0);
}

void data_bytes(const void *bytes, size_t size) {
    has_data = 1;
    key("data");
    raw("\"");
    for (size_t i = 0; i < size; i++)
        raw("%02x", ((const unsigned char *)bytes)[i]);
    raw("\"");
}

void data_text(const char *value) {
    has_data = 1;
    text("data", value);
}

void note(const char *value) {
    if (!value)
        return;
    has_note = 1;
    text("note", value);
}

static const char *signal_name(int signo) {
    return signo == SIGBUS ? "SIGBUS" : signo == SIGSEGV ? "SIGSEGV" : "other";
}

static const char *code_name(int signo, int code) {
    static const char *const bus[] = {"0", "BUS_ADRALN", "BUS_ADRERR", "BUS_OBJERR", "BUS_MCEERR_AR"};
    static const char *const segv[] = {"0", "SEGV_MAPERR", "SEGV_ACCERR"};
    if (signo == SIGBUS && code > 0 && code < (int)COUNT(bus))
        return bus[code];
    if (signo == SIGSEGV && code > 0 && code < (int)COUNT(segv))
        return segv[code];
    return code == SI_KERNEL ? "SI_KERNEL" : form("%d", code);
}

static void signal_start(int signo, int code) {
    has_signal = 1;
    key("signal");
    raw("{\"signo\":");
    string(signal_name(signo));
    raw(",\"si_code\":");
    string(code_name(signo, code));
}

void signal_field(void *base, u64 phys) {
    long distance = (char *)caught.si_addr - (char *)base;
    signal_start(caught.si_signo, caught.si_code);
    raw(",\"si_code_num\":%d,\"si_errno\":%d", caught.si_code, caught.si_errno);
    raw(",\"si_addr_minus_base\":%ld,\"si_addr_phys\":\"0x%" PRIx64 "\"}", distance, phys + distance);
}

void signal_of_child(int signo, int code) {
    signal_start(signo, code);
    raw("}");
}

static void kernel_log(int wanted) {
    char message[8192];
    int first = 1;
    for (;;) {
        ssize_t size = read(kmsg_fd, message, sizeof message - 1);
        if (size < 0 && errno == EPIPE)
            continue;
        if (size <= 0)
            break;
        message[size] = 0;
        char *start = strchr(message, ';');
        if (!start || !wanted)
            continue;
        start[1 + strcspn(start + 1, "\n")] = 0;
        raw(first ? ",\"kmsg\":[" : ",");
        first = 0;
        string(start + 1);
    }
    if (!first)
        raw("]");
}

void discard_kmsg(void) {
    kernel_log(0);
}

void end(void) {
    if (!has_signal)
        raw(",\"signal\":null");
    if (!has_data)
        raw(",\"data\":null");
    if (!has_note)
        raw(",\"note\":null");
    kernel_log(1);
    raw("}\n");
    for (size_t done = 0; done < used;) {
        ssize_t written = write(records_fd, line + done, used - done);
        if (written < 0 && errno != EINTR && errno != EAGAIN)
            break;
        done += written > 0 ? written : 0;
    }
    made++;
}

void answer(const char *name, const char *op, long long value) {
    int error = value < 0 ? errno : 0;
    begin(name, op);
    result(value, error);
    end();
}

int records_made(void) {
    return made;
}
