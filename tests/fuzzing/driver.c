/* What libFuzzer does, for compilers that come without it: seeds are mutated, and whatever reaches
 * new edges of the code becomes a seed. The same number gives the same inputs in the same order.
 *
 * usage: driver SECONDS NUMBER SEED-FILE…
 */
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { EDGES = 1 << 16, MOST_SEEDS = 1 << 14, MOST_BYTES = 1 << 13, MOST_CHANGES = 6 };

typedef struct {
    uint8_t *data;
    size_t size;
} Input;

static Input seeds[MOST_SEEDS];
static size_t seed_count;
static uint8_t seen[EDGES], now[EDGES];
static uintptr_t previous;
static uint64_t state;
static Input current;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
void __sanitizer_cov_trace_pc(void);

/* Called by the code under test at each basic block (gcc's -fsanitize-coverage=trace-pc). */
void __sanitizer_cov_trace_pc(void)
{
    uintptr_t here = (uintptr_t)__builtin_return_address(0);
    here = (here ^ here >> 15) * UINT64_C(0x9e3779b97f4a7c15) >> 20;
    now[(here ^ previous) % EDGES] = 1;
    previous = here >> 1;
}

/* Keeps the input that broke something: sanitizers and the target's own checks end in abort(). */
static void keep(int number)
{
    signal(number, SIG_DFL);
    FILE *file = fopen("crash.bin", "wb");
    if (file != NULL) {
        fwrite(current.data, 1, current.size, file);
        fclose(file);
        fputs("fuzzing: the input is in crash.bin\n", stderr);
    }
    raise(number);
}

/* xorshift64* (Sebastiano Vigna). */
static uint32_t below(uint32_t limit)
{
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return (uint32_t)((state * UINT64_C(2685821657736338717)) >> 32) % limit;
}

static void add_seed(const uint8_t *data, size_t size)
{
    Input *seed = &seeds[seed_count < MOST_SEEDS ? seed_count++ : below(MOST_SEEDS)];
    free(seed->data);
    seed->data = malloc(size + 1);
    if (seed->data == NULL)
        exit(2);
    memcpy(seed->data, data, size);
    seed->size = size;
}

static void run(const uint8_t *data, size_t size)
{
    memset(now, 0, sizeof now);
    previous = 0;
    current = (Input){(uint8_t *)data, size};
    LLVMFuzzerTestOneInput(data, size);
    int is_new = 0;
    for (size_t i = 0; i < EDGES; i += 8) {
        uint64_t word, known;
        memcpy(&word, now + i, 8);
        memcpy(&known, seen + i, 8);
        if ((word & ~known) != 0) {
            known |= word;
            memcpy(seen + i, &known, 8);
            is_new = 1;
        }
    }
    if (is_new)
        add_seed(data, size);
}

static void put_number(uint8_t *data, size_t size)
{
    static const uint32_t numbers[] = {
        0, 1, 2, 4, 8, 16, 9999, 32767, 32768, 65535, 0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff,
    };
    uint32_t number = numbers[below(sizeof numbers / sizeof *numbers)];
    size_t bytes = below(2) ? 4 : 2;
    if (size < bytes)
        return;
    uint8_t *at = data + below((uint32_t)(size - bytes + 1));
    for (size_t i = bytes; i-- > 0; number >>= 8)
        at[i] = (uint8_t)number;
}

/* Takes out some bytes, or puts in some of a seed's. */
static size_t resize(uint8_t *data, size_t size)
{
    size_t at = below((uint32_t)size + 1);
    size_t count = 1 + below(below(2) ? 4 : 40);
    if (below(2)) {
        count = count < size - at ? count : size - at;
        memmove(data + at, data + at + count, size - at - count);
        return size - count;
    }
    const Input *seed = &seeds[below((uint32_t)seed_count)];
    count = count < seed->size ? count : seed->size;
    if (size + count > MOST_BYTES)
        return size;
    memmove(data + at + count, data + at, size - at);
    memcpy(data + at, seed->data + below((uint32_t)(seed->size - count + 1)), count);
    return size + count;
}

static size_t mutate(uint8_t *data, size_t size)
{
    for (uint32_t changes = 1 + below(MOST_CHANGES); changes > 0; changes--) {
        switch (size == 0 ? 4 : below(6)) {
        case 0:
            data[below((uint32_t)size)] ^= (uint8_t)(1 << below(8));
            break;
        case 1:
            data[below((uint32_t)size)] = (uint8_t)below(256);
            break;
        case 2:
            put_number(data, size);
            break;
        case 3:
            size = below((uint32_t)size + 1); /* cut off */
            break;
        default:
            size = resize(data, size);
        }
    }
    return size;
}

static void read_seed(const char *path)
{
    uint8_t data[MOST_BYTES];
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        perror(path);
        exit(2);
    }
    size_t size = fread(data, 1, sizeof data, file);
    fclose(file);
    add_seed(data, size);
    run(data, size);
}

int main(int count, char **arguments)
{
    if (count < 4) {
        fputs("usage: driver SECONDS NUMBER SEED-FILE…\n", stderr);
        return 2;
    }
    time_t end = time(NULL) + atoi(arguments[1]);
    state = strtoull(arguments[2], NULL, 10) * 2 + 1;
    signal(SIGABRT, keep);
    for (int i = 3; i < count; i++)
        read_seed(arguments[i]);
    size_t runs = 0, edges = 0;
    for (; time(NULL) < end; runs++) {
        uint8_t data[MOST_BYTES];
        const Input *seed = &seeds[below((uint32_t)seed_count)];
        memcpy(data, seed->data, seed->size);
        run(data, mutate(data, seed->size));
    }
    for (size_t i = 0; i < EDGES; i++)
        edges += seen[i];
    printf("fuzzing: %zu inputs, %zu edges, %zu seeds\n", runs, edges, seed_count);
    fflush(stdout);
    _Exit(0); /* nothing is to be kept */
}
