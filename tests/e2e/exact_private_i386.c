/* A 32-bit program without a C library: copies a page of its data, says where it is, and after a line what it holds. */
static volatile char word[4096] __attribute__((aligned(4096))) = "file\n";
static int call(int number, int a, int b, int c)
{
    int result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(a), "c"(b), "d"(c) : "memory");
    return result;
}
void _start(void)
{
    static const char copy[] = "copy\n";
    char line[16];
    volatile char *place = word;
    for (int i = 0; i < 5; i++)
        word[i] = copy[i];
    call(4, 1, (int)&place, sizeof place);
    while (call(3, 0, (int)line, sizeof line) > 0)
        call(4, 1, (int)word, 5);
    call(1, 0, 0, 0);
}
