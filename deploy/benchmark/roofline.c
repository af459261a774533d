/* Two ceilings of one core: fused multiply-adds a second, and bytes read a second.
 *
 * How many independent sums, and vectors of what width, keep the core busiest differs between
 * cores: there is a loop for each, and roofline_engine.py takes the best.
 */
#include <stdint.h>
#include <time.h>

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

typedef float v4 __attribute__((vector_size(16)));
typedef float v8 __attribute__((vector_size(32)));
typedef float v16 __attribute__((vector_size(64)));

/* Seconds of `rounds` x SUMS fused multiply-adds of a vector. Floating-point sums are not reordered,
 * so each is a chain of its own, and what comes out is kept. */
#define LOOP(TYPE, SUMS)                                                          \
  double fma_##TYPE##_##SUMS(int64_t rounds, float factor, float term) {          \
    TYPE sums[SUMS], x = factor - (TYPE){0}, y = term - (TYPE){0};                \
    for (int i = 0; i < SUMS; i++) sums[i] = y * (float)i;                        \
    double begin = now();                                                         \
    for (int64_t round = 0; round < rounds; round++) {                            \
      _Pragma("clang loop unroll(full)") for (int i = 0; i < SUMS; i++) sums[i] = \
          __builtin_elementwise_fma(sums[i], x, y);                               \
    }                                                                             \
    double seconds = now() - begin;                                               \
    TYPE all = sums[0];                                                           \
    for (int i = 1; i < SUMS; i++) all += sums[i];                                \
    volatile float kept = all[0];                                                 \
    (void)kept;                                                                   \
    return seconds;                                                               \
  }

#define LOOPS(TYPE) LOOP(TYPE, 8) LOOP(TYPE, 10) LOOP(TYPE, 12) LOOP(TYPE, 16) LOOP(TYPE, 24)

LOOPS(v4)
LOOPS(v8)
LOOPS(v16)

/* Seconds to read an array of floats once, as STREAMS streams side by side: one alone does not keep
 * every core's prefetchers busy. */
#define READ(STREAMS)                                                            \
  double read_##STREAMS(const float *values, int64_t count) {                    \
    v16 sums[STREAMS][2] = {{{0}, {0}}};                                         \
    int64_t each = count / STREAMS / 32 * 32;                                    \
    double begin = now();                                                        \
    for (int64_t i = 0; i < each; i += 32)                                       \
      _Pragma("clang loop unroll(full)") for (int j = 0; j < STREAMS; j++) {     \
        sums[j][0] += *(const v16 *)(values + j * each + i);                     \
        sums[j][1] += *(const v16 *)(values + j * each + i + 16);                \
      }                                                                          \
    double seconds = now() - begin;                                              \
    v16 all = {0};                                                               \
    for (int j = 0; j < STREAMS; j++) all += sums[j][0] + sums[j][1];            \
    volatile float kept = all[0];                                                \
    (void)kept;                                                                  \
    return seconds;                                                              \
  }

READ(1)
READ(2)
READ(4)
READ(8)
