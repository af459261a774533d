/* One network in one program: parity with PyTorch, latency, by kernel.  Prints JSON.
 *
 * network.h is generated (network_description.py): what the network is called, its tensors, and two
 * functions that take their pointers in a list.  The answers of an emulator are real, its times are
 * not: where this is emulated, or is told so, it prints none.
 */

#include <getopt.h>
#include <math.h>
#include <stdint.h>
#include <sys/mman.h>
#include <time.h>

#include "cpuinfo.h"
#include "network.h"

enum { FIRST_CLASSES = 5, FLUSHED_BYTES = 64 << 20, ALIGNMENT = 64 };

typedef struct {
  const char *core, *reference;
  int runs, warm_up;
  bool is_emulated, is_cold, by_kernel;
} Options;

static const char *const HELP =
    "Runs " NETWORK_NAME " on this device and prints JSON.\n"
    "\n"
    "  --core big|little|any|N  where to run (default: big, the fastest core)\n"
    "  --runs N                 how many inferences to time (default: 100)\n"
    "  --warm-up N              how many before (default: 10)\n"
    "  --cold                   empty the caches before each inference\n"
    "  --kernels                also the time of each kernel\n"
    "  --reference FILE         compare with PyTorch's answers, which FILE has\n"
    "  --emulated               this is an emulator: print no time\n";

static _Noreturn void fail(const char *what, const char *detail) {
  fprintf(stderr, "%s: %s%s%s\n", NETWORK_NAME, what, *detail ? ": " : "", detail);
  exit(1);
}

static void *memory(size_t size) {
  void *found = NULL;
  if (posix_memalign(&found, ALIGNMENT, size ? size : ALIGNMENT)) fail("out of memory", "");
  memset(found, 0, size);
  return found;
}

/* ---- parity ---- */

static size_t case_bytes(void) {
  size_t size = 0;
  for (int i = 0; i < INPUTS + OUTPUTS; ++i) size += TENSORS[i].bytes;
  return size;
}

static const uint8_t *map_reference(const char *path, size_t *cases) {
  const int file = open(path, O_RDONLY | O_CLOEXEC);
  const off_t size = file < 0 ? -1 : lseek(file, 0, SEEK_END);
  if (size <= 0 || (size_t)size % case_bytes()) fail("no reference of this network", path);
  *cases = (size_t)size / case_bytes();
  void *found = mmap(NULL, (size_t)size, PROT_READ, MAP_PRIVATE, file, 0);
  if (found == MAP_FAILED) fail("cannot read", path);
  close(file);
  return found;
}

/* The first classes of some scores, the likeliest first; of equals, the first. */
static int first_classes(const float *scores, int count, int *classes) {
  int found = 0;
  for (; found < FIRST_CLASSES && found < count; ++found) {
    int best = -1;
    for (int i = 0; i < count; ++i) {
      bool taken = false;
      for (int j = 0; j < found; ++j) taken |= classes[j] == i;
      if (!taken && (best < 0 || scores[i] > scores[best])) best = i;
    }
    classes[found] = best;
  }
  return found;
}

static bool holds_same(const int *left, const int *right, int count) {
  for (int i = 0; i < count; ++i) {
    bool is_there = false;
    for (int j = 0; j < count; ++j) is_there |= left[i] == right[j];
    if (!is_there) return false;
  }
  return true;
}

/* The largest difference.  Not by fmax, which forgets what is no number. */
static double largest_error(const float *ours, const float *wanted, size_t count) {
  double error = 0;
  for (size_t k = 0; k < count && !isnan(error); ++k) {
    const double off = fabs((double)ours[k] - wanted[k]);
    if (!(off <= error)) error = off;
  }
  return error;
}

/* Compare one case, output by output; classes are ranked by the first row of the first output. */
static void print_case(void *const *wanted, void *const *outputs, bool is_first) {
  printf("%s{\"errors\": [", is_first ? "" : ", ");
  for (int i = 0; i < OUTPUTS; ++i) {
    const size_t count = TENSORS[INPUTS + i].bytes / sizeof(float);
    const double error = largest_error(outputs[i], wanted[i], count);
    if (isfinite(error)) printf("%s%.9g", i ? ", " : "", error);
    else printf("%snull", i ? ", " : "");
  }
  int ours[FIRST_CLASSES] = {0}, right[FIRST_CLASSES] = {0};
  first_classes(wanted[0], CLASSES, right);
  const int count = first_classes(outputs[0], CLASSES, ours);
  printf("], \"top1\": %s, \"top5\": %s}", ours[0] == right[0] ? "true" : "false",
         holds_same(ours, right, count) ? "true" : "false");
}

static void run_or_fail(void *const *tensors, void *workspace) {
  if (run_network(tensors, workspace)) fail("the network refused its memory", "");
}

/* Copy tensors from a place that may be aligned to nothing; gives the place behind them. */
static const uint8_t *take(const uint8_t *place, void *const *tensors, int first, int count) {
  for (int i = 0; i < count; place += TENSORS[first + i].bytes, ++i)
    memcpy(tensors[i], place, TENSORS[first + i].bytes);
  return place;
}

static void print_parity(const uint8_t *reference, size_t cases, void *const *tensors,
                         void *workspace) {
  void *wanted[OUTPUTS];
  for (int i = 0; i < OUTPUTS; ++i) wanted[i] = memory(TENSORS[INPUTS + i].bytes);
  printf(",\n \"cases\": [");
  for (size_t number = cases; number-- > 0;) {
    /* The first case comes last: its inputs stay, and are what is timed. */
    const uint8_t *place = take(reference + number * case_bytes(), tensors, 0, INPUTS);
    take(place, wanted, INPUTS, OUTPUTS);
    run_or_fail(tensors, workspace);
    print_case(wanted, tensors + INPUTS, number == cases - 1);
  }
  printf("]");
}

/* ---- time ---- */

static double now_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec * 1e3 + (double)now.tv_nsec * 1e-6;
}

static int by_size(const void *left, const void *right) {
  const double a = *(const double *)left, b = *(const double *)right;
  return (a > b) - (a < b);
}

/* Of sorted values: as NumPy interpolates. */
static double quantile(const double *sorted, int count, double part) {
  const double place = part * (count - 1);
  const int below = (int)place, above = below + (below < count - 1);
  return sorted[below] + (sorted[above] - sorted[below]) * (place - below);
}

/* Write to more memory than caches have. */
static void empty_caches(void) {
  static uint8_t *flushed;
  if (!flushed) flushed = memory(FLUSHED_BYTES);
  for (size_t i = 0; i < FLUSHED_BYTES; i += ALIGNMENT) ((volatile uint8_t *)flushed)[i] += 1;
}

static void print_kernels(const Options *options, double *const *times) {
  printf(",\n \"kernels\": [");
  for (int call = 0; call < KERNEL_CALLS; ++call) {
    qsort(times[call], (size_t)options->runs, sizeof(double), by_size);
    printf("%s\n  {\"name\": \"%s\", \"median_ms\": %.6f}", call ? "," : "", KERNEL_NAMES[call],
           quantile(times[call], options->runs, 0.5));
  }
  printf("]");
}

static void print_latency(const Options *options, void *const *tensors, void *workspace) {
  double *total = memory((size_t)options->runs * sizeof *total), *times[KERNEL_CALLS];
  int64_t ticks[KERNEL_CALLS + 1];
  for (int call = 0; options->by_kernel && call < KERNEL_CALLS; ++call)
    times[call] = memory((size_t)options->runs * sizeof(double));
  for (int run = -options->warm_up; run < options->runs; ++run) {
    if (options->is_cold) empty_caches();
    const double begun = now_ms();
    run_or_fail(tensors, workspace);
    if (run >= 0) total[run] = now_ms() - begun;
  }
  for (int run = 0; options->by_kernel && run < options->runs; ++run) {
    if (options->is_cold) empty_caches();
    const double begun = now_ms();
    if (time_network(tensors, workspace, ticks)) fail("the network refused its memory", "");
    /* A network may be shorter than a tick. */
    const int64_t passed = ticks[KERNEL_CALLS] - ticks[0];
    const double tick = passed > 0 ? (now_ms() - begun) / (double)passed : 0;
    for (int call = 0; call < KERNEL_CALLS; ++call)
      times[call][run] = (double)(ticks[call + 1] - ticks[call]) * tick;
  }
  qsort(total, (size_t)options->runs, sizeof *total, by_size);
  printf(",\n \"latency\": {\"median_ms\": %.6f, \"p10_ms\": %.6f, \"p90_ms\": %.6f,"
         " \"runs\": %d, \"cold\": %s}",
         quantile(total, options->runs, 0.5), quantile(total, options->runs, 0.1),
         quantile(total, options->runs, 0.9), options->runs, options->is_cold ? "true" : "false");
  if (options->by_kernel) print_kernels(options, times);
}

/* ---- what the device is ---- */

static void print_number(const char *name, long value) {
  if (value == UNKNOWN) printf("\"%s\": null", name);
  else printf("\"%s\": %ld", name, value);
}

static void print_processor(const char *when, int core) {
  printf(",\n \"%s\": {", when);
  print_number("core", core == ANY_CORE ? UNKNOWN : core);
  printf(", ");
  print_number("present_khz", core == ANY_CORE ? UNKNOWN : present_clock(core));
  printf(", ");
  print_number("highest_khz", core == ANY_CORE ? UNKNOWN : highest_clock(core));
  printf(", ");
  print_number("millidegrees", temperature());
  printf("}");
}

/* Its own name, and the part number of the core. */
static void print_device(int core, bool emulated) {
  static char features[LONGEST_LINE];
  char part[16], name[96];
  read_cpuinfo(core, features, part, sizeof part);
  device_name(emulated, name, sizeof name);
  printf(",\n \"part\": \"%s\", \"name\": ", part);
  if (*name) printf("\"%s\"", name);
  else printf("null");
}

static int whole_number(const char *text, int least) {
  char *end;
  const long value = strtol(text, &end, 10);
  if (!isdigit((unsigned char)*text) || *end || value < least || value > 1000000)
    fail("no such number", text);
  return (int)value;
}

static Options parse(int count, char **words) {
  static const struct option known[] = {
      {"core", required_argument, 0, 'c'},    {"runs", required_argument, 0, 'r'},
      {"warm-up", required_argument, 0, 'w'}, {"cold", no_argument, 0, 'f'},
      {"kernels", no_argument, 0, 'k'},       {"reference", required_argument, 0, 'p'},
      {"emulated", no_argument, 0, 'e'},      {"help", no_argument, 0, 'h'},
      {0, 0, 0, 0},
  };
  Options options = {"big", NULL, 100, 10, false, false, false};
  for (int found; (found = getopt_long(count, words, "h", known, NULL)) != -1;) switch (found) {
      case 'c': options.core = optarg; break;
      case 'r': options.runs = whole_number(optarg, 1); break;
      case 'w': options.warm_up = whole_number(optarg, 0); break;
      case 'f': options.is_cold = true; break;
      case 'k': options.by_kernel = true; break;
      case 'p': options.reference = optarg; break;
      case 'e': options.is_emulated = true; break;
      case 'h': fputs(HELP, stdout); exit(0);
      default: fputs(HELP, stderr); exit(2);
    }
  if (optind < count) fail("no such option", words[optind]);
  return options;
}

int main(int count, char **words) {
  const Options options = parse(count, words);
  const bool no_times = options.is_emulated || is_emulated();
  const int core = choose_core(options.core);
  if (core == NO_SUCH_CORE) fail("this program may not run on such a core", options.core);
  if (core != ANY_CORE && !pin_to_core(core)) fail("cannot run on core", options.core);
  size_t cases = 0;
  const uint8_t *reference = options.reference ? map_reference(options.reference, &cases) : NULL;
  void *tensors[INPUTS + OUTPUTS], *workspace = memory(WORKSPACE_BYTES);
  for (int i = 0; i < INPUTS + OUTPUTS; ++i) tensors[i] = memory(TENSORS[i].bytes);
  printf("{\"network\": \"%s\",\n \"emulated\": %s", NETWORK_NAME, no_times ? "true" : "false");
  print_device(core, no_times);
  if (reference) print_parity(reference, cases, tensors, workspace);
  if (!no_times) {
    print_processor("before", core);
    print_latency(&options, tensors, workspace);
    print_processor("after", core);
  }
  printf("}\n");
  return 0;
}
