/* setresuid32, setgroups32 and their questions by the table of i386, from 64-bit code (int $0x80). */

#include <stdio.h>

static unsigned groups[2] = {8, 9}, found[3];

static int call(int number, long a, long b, long c)
{
    long result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"((long)number), "b"(a), "c"(b), "d"(c) : "memory",
                     "r8", "r9", "r10", "r11");
    return (int)result;
}

int main(void)
{
    /* What is above 32 bits is not looked at. */
    printf("%d ", call(206, 2, (long)groups, 0));
    printf("%d ", call(208, 77 | 1L << 40, 78, -1));
    printf("%d %d ", call(199, 0, 0, 0), call(201, 0, 0, 0));
    printf("%d ", call(209, (long)&found[0], (long)&found[1], (long)&found[2]));
    printf("%u %u %u ", found[0], found[1], found[2]);
    printf("%d ", call(205, 2, (long)found, 0));
    printf("%u %u ", found[0], found[1]);
    printf("%d\n", call(213, 5, 0, 0));
    return 0;
}
