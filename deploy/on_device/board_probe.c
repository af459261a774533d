/* Finds out what an estimate has to know of a board: core, clock, caches, memory.  Prints JSON.
 *
 * Caches are told by /sys.  The clock is measured by operations that wait for each other, each of
 * which takes a known number of cycles; the rate of memory by copies as tinymembench makes them
 * (github.com/ssvb/tinymembench), of which the fastest counts: whatever disturbs one makes it slower.
 * An emulator's time says nothing of a board: where this is emulated, nothing is measured.
 */

#include <time.h>

#include "cpuinfo.h"

enum {
  CHAIN = 1000,     /* operations of one step of the chain */
  STEPS = 5000,     /* of one round: some milliseconds */
  CLOCK_ROUNDS = 200, /* half a second: a governor takes its time */
  COPY_ROUNDS = 8,
  MOST_LEVELS = 16,
  KIB = 1024
};

static const size_t LEAST_BLOCK = (size_t)32 << 20, MOST_BLOCK = (size_t)256 << 20;
static const double LEAST_ROUND_S = 0.2;

static _Noreturn void fail(const char *what) {
  fprintf(stderr, "board_probe: %s\n", what);
  exit(1);
}

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

/* ---- the clock ---- */

/* Cycles of one operation of the chain: an addition of registers takes one on ARM's cores, a
   multiplication of 64 bits three on Intel's and AMD's. */
#ifdef __aarch64__
enum { CYCLES = 1 };
#define LINK "add %0, %0, %1\n"
#else
enum { CYCLES = 3 };
#define LINK "imul %1, %0\n"
#endif

static double measured_hz(void) {
  double fastest = 0;
  long value = 1, by = 1;
  for (int round = 0; round < CLOCK_ROUNDS; ++round) {
    const double start = now();
    for (int step = 0; step < STEPS; ++step)
      __asm__ volatile(".rept %c2\n" LINK ".endr" : "+r"(value) : "r"(by), "i"(CHAIN));
    const double hz = (double)CYCLES * CHAIN * STEPS / (now() - start);
    if (hz > fastest) fastest = hz;
  }
  return fastest;
}

/* ---- caches ---- */

struct level {
  char type[16];
  long level, kib, ways;
};

static bool read_level(int core, int place, struct level *found) {
  char path[128], size[32], *unit;
  const char *folder = "/sys/devices/system/cpu/cpu%d/cache/index%d/%s";
  snprintf(path, sizeof path, folder, core, place, "level");
  found->level = read_number(path);
  snprintf(path, sizeof path, folder, core, place, "ways_of_associativity");
  found->ways = read_number(path);
  snprintf(path, sizeof path, folder, core, place, "type");
  read_start(path, found->type, sizeof found->type);
  found->type[strcspn(found->type, "\n")] = 0;
  snprintf(path, sizeof path, folder, core, place, "size");
  found->kib = read_start(path, size, sizeof size) ? strtol(size, &unit, 10) : UNKNOWN;
  if (found->kib > 0 && *unit == 'M') found->kib *= KIB;
  return found->level != UNKNOWN;
}

/* ---- memory ---- */

/* Of more than the last cache holds, as far as there is room for two of it. */
static size_t block_size(long largest_kib) {
  const long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
  const size_t room = pages > 0 && page > 0 ? (size_t)pages * (size_t)page / 8 : LEAST_BLOCK;
  const size_t wanted = largest_kib > 0 ? 4 * KIB * (size_t)largest_kib : 0;
  size_t block = LEAST_BLOCK;
  while (block < wanted && block < MOST_BLOCK && 2 * block <= room) block *= 2;
  return block;
}

static double copied_bytes_a_second(size_t block) {
  char *from = malloc(block), *to = malloc(block);
  if (!from || !to) fail("there is no memory for a copy");
  memset(from, 1, block);
  memset(to, 2, block);
  double fastest = 0;
  for (int round = 0; round < COPY_ROUNDS; ++round) {
    const double start = now();
    double taken = 0;
    long copies = 0;
    for (; taken < LEAST_ROUND_S; taken = now() - start, ++copies) {
      memcpy(to, from, block);
      __asm__ volatile("" : : "r"(to) : "memory");
    }
    const double rate = (double)copies * (double)block / taken;
    if (rate > fastest) fastest = rate;
  }
  return fastest;
}

/* ---- what is told ---- */

static void print_number(const char *name, long value) {
  if (value == UNKNOWN) printf("\"%s\": null", name);
  else printf("\"%s\": %ld", name, value);
}

/* Print what /sys tells of the core's caches; gives the size of the largest, or UNKNOWN. */
static long print_levels(int core) {
  long largest = UNKNOWN;
  struct level found;
  printf("\"levels\": [");
  for (int place = 0; place < MOST_LEVELS && read_level(core, place, &found); ++place) {
    const bool is_data = !strcmp(found.type, "Data") || !strcmp(found.type, "Unified");
    printf("%s{\"holds_data\": %s, ", place ? ", " : "", is_data ? "true" : "false");
    print_number("level", found.level);
    printf(", ");
    print_number("kib", found.kib);
    printf(", ");
    print_number("ways", found.ways);
    printf("}");
    if (is_data && found.kib > largest) largest = found.kib;
  }
  printf("]");
  return largest;
}

int main(int count, char **words) {
  static char features[LONGEST_LINE];
  char part[32];
  const int core = choose_core(count > 1 ? words[1] : "big");
  if (core == NO_SUCH_CORE) fail("this program may not run on such a core");
  if (core != ANY_CORE && !pin_to_core(core)) fail("it cannot be pinned to that core");
  const int here = core == ANY_CORE ? sched_getcpu() : core;
  read_cpuinfo(here, features, part, sizeof part);
  const bool emulated = is_emulated();
  printf("{\"emulated\": %s, \"core\": %d, \"part\": \"%.10s\", ", emulated ? "true" : "false", here,
         part[strspn(part, "0123456789abcdefABCDEFx")] ? "" : part);
  print_number("highest_khz", highest_clock(here));
  printf(", ");
  const size_t block = block_size(print_levels(here));
  if (!emulated)
    printf(", \"hz\": %.0f, \"block_kib\": %zu, \"copied_bytes_a_second\": %.0f", measured_hz(),
           block / KIB, copied_bytes_a_second(block));
  printf("}\n");
  return 0;
}
