/* Notes the time before and after each call of the Relax virtual machine.
 *
 * The machine calls its instrument as any packed function; nothing of its arguments is looked at.
 * Compiled for the machine that measures; see kernel_engine.py.
 */
#include <stdint.h>
#include <time.h>

/* tvm_ffi's TVMFFIAny: 16 bytes. */
typedef struct {
  int32_t type_index;
  uint32_t padding;
  int64_t value;
} Any;

enum { CAPACITY = 1 << 16 };

int64_t instrument_stamps[CAPACITY];
int32_t instrument_count;

static int64_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

int __tvm_ffi_instrument(void *self, const Any *arguments, int32_t count, Any *result) {
  (void)self, (void)arguments, (void)count;
  result->type_index = 0; /* none: go on with the call */
  result->padding = 0;
  result->value = 0;
  if (instrument_count < CAPACITY) instrument_stamps[instrument_count++] = now();
  return 0;
}
