/* What LLVM may call in a shared library that needs no other library: see ISO C, 7.26.2. */

#include <stddef.h>
#include <stdint.h>

typedef uint64_t vec __attribute__((vector_size(16), aligned(1), may_alias));

void *memcpy(void *restrict to, const void *restrict from, size_t n) {
  uint8_t *d = to;
  const uint8_t *s = from;
  for (; n >= 64; n -= 64, d += 64, s += 64) {
    const vec a = ((const vec *)s)[0], b = ((const vec *)s)[1];
    const vec c = ((const vec *)s)[2], e = ((const vec *)s)[3];
    ((vec *)d)[0] = a, ((vec *)d)[1] = b, ((vec *)d)[2] = c, ((vec *)d)[3] = e;
  }
  for (; n >= 16; n -= 16, d += 16, s += 16) *(vec *)d = *(const vec *)s;
  while (n--) *d++ = *s++;
  return to;
}

void *memset(void *to, int value, size_t n) {
  uint8_t *d = to;
  const uint64_t word = 0x0101010101010101u * (uint8_t)value;
  const vec wide = {word, word};
  for (; n >= 64; n -= 64, d += 64)
    ((vec *)d)[0] = wide, ((vec *)d)[1] = wide, ((vec *)d)[2] = wide, ((vec *)d)[3] = wide;
  for (; n >= 16; n -= 16, d += 16) *(vec *)d = wide;
  while (n--) *d++ = (uint8_t)value;
  return to;
}
