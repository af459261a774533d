/* QEMU TCG plugin: counts how often each translation block ran between two marks of the guest.
 *
 * The guest marks with unused system calls (the numbers must match runner.c, loaded_libraries.c and
 * executed_blocks.py):
 *   BEGIN low, high   clears the counts and remembers the address range of interest;
 *   END               writes <out>.<process id>, one line a block: "address bytes instructions
 *               executions", and where caches are simulated what its loads and stores wanted and did
 *               not find: see `enum event`;
 *   SIMULATE l1, l2, l3, pages   simulates empty caches of these shapes from then on, each written as
 *               SETS * 256 + WAYS (SETS a power of two), 0 for a third level that is not there;
 *   FORGET            empties the simulated caches.
 * The arguments l1=SETS:WAYS, l2=.. and pages=.. simulate from the start.  Each level replaces what
 * was used longest ago, a store fetches its line, and nothing is prefetched.
 *
 * Compiled without QEMU's headers: the plugin API v1 is a C ABI, its few prototypes are below.
 * Counters are plain additions in the translated code, exact with one guest thread.  A fork inherits
 * them by copy on write, so a child counts for itself and writes a file of its own.
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MARK_BEGIN = 7001, MARK_END = 7002, MARK_SIMULATE = 7003, MARK_FORGET = 7004 };

typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
typedef struct qemu_info_t qemu_info_t;
enum qemu_plugin_op { QEMU_PLUGIN_INLINE_ADD_U64 };
typedef void (*tb_trans_cb)(qemu_plugin_id_t, struct qemu_plugin_tb *);
typedef void (*syscall_cb)(qemu_plugin_id_t, unsigned vcpu, int64_t number, uint64_t a1, uint64_t a2,
                           uint64_t a3, uint64_t a4, uint64_t a5, uint64_t a6, uint64_t a7,
                           uint64_t a8);
void qemu_plugin_reset(qemu_plugin_id_t, void (*done)(qemu_plugin_id_t));
void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, tb_trans_cb);
void qemu_plugin_register_vcpu_syscall_cb(qemu_plugin_id_t, syscall_cb);
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *, enum qemu_plugin_op,
                                              void *counter, uint64_t step);
uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
struct qemu_plugin_insn;
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t index);
uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *);
size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *);

enum qemu_plugin_cb_flags { QEMU_PLUGIN_CB_NO_REGS };
enum qemu_plugin_mem_rw { QEMU_PLUGIN_MEM_RW = 3 };
typedef uint32_t qemu_plugin_meminfo_t;
typedef void (*mem_cb)(unsigned vcpu, qemu_plugin_meminfo_t, uint64_t address, void *data);
void qemu_plugin_register_vcpu_mem_cb(struct qemu_plugin_insn *, mem_cb, enum qemu_plugin_cb_flags,
                                      enum qemu_plugin_mem_rw, void *data);
unsigned qemu_plugin_mem_size_shift(qemu_plugin_meminfo_t);
bool qemu_plugin_mem_is_store(qemu_plugin_meminfo_t);

#define EXPORT __attribute__((visibility("default")))
EXPORT int qemu_plugin_version = 1;

/* What a block's loads and stores wait for, in the order in which END writes them. */
enum event {
  FOLLOWING, /* lines of 64 bytes that the first level lacked, near one that it lacked lately */
  STARTING,  /* others that it lacked: a prefetcher cannot know them */
  SECOND,    /* lines that the second level lacked, too */
  THIRD,     /* and the third; none where there is none */
  DIRTY,     /* changed lines that left the last level for memory */
  PAGES,     /* pages of 4 KiB whose place the first level of translation lacked */
  BLOCKED,   /* loads of more than one of the latest stores wrote */
  EVENTS
};
struct block {
  uint64_t address, bytes, instructions, executions, events[EVENTS];
  struct block *next;
};
/* A load or store: its block, and its address, by which the pieces of a long vector are known. */
struct site {
  struct block *block;
  uint64_t address;
};

/* Chained buckets: a block never moves, since translated code holds the address of its counter. */
enum { BUCKETS = 1 << 15 };
static struct block *buckets[BUCKETS];
static uint64_t range_low, range_high;
static char out_prefix[4000];

static struct block *find_block(uint64_t address, uint64_t bytes, uint64_t instructions) {
  struct block **place = &buckets[(address >> 2) % BUCKETS];
  for (struct block *b = *place; b; b = b->next)
    if (b->address == address && b->bytes == bytes && b->instructions == instructions) return b;
  struct block *b = calloc(1, sizeof *b);
  if (!b) abort();
  *b = (struct block){address, bytes, instructions, 0, {0}, *place};
  return *place = b;
}

/* ---- caches ---- */

enum { LINE_SHIFT = 6, PAGE_SHIFT = 12, MOST_WAYS = 64, MOST_SETS = 1 << 20, LEVELS = 3 };
struct cache {
  uint64_t sets, ways;
  uint64_t *lines; /* of each set, the one used last first: (line + 1) * 2, one more if changed */
};
static struct cache levels[LEVELS], pages; /* of data; of where pages are */

static uint64_t *set_of(const struct cache *cache, uint64_t line) {
  return cache->lines + (line & (cache->sets - 1)) * cache->ways;
}

/* Whether the line was there; it is now, and used last. `left` is what had to leave, or 0. */
static bool touch(const struct cache *cache, uint64_t line, bool changes, uint64_t *left) {
  uint64_t *set = set_of(cache, line), moved = set[0];
  *left = 0;
  if (moved >> 1 == line + 1) {
    set[0] |= changes;
    return true;
  }
  for (uint64_t way = 1; way < cache->ways; ++way) {
    const uint64_t here = set[way];
    set[way] = moved;
    if (here >> 1 == line + 1) {
      set[0] = here | changes;
      return true;
    }
    moved = here;
  }
  set[0] = (line + 1) << 1 | changes;
  *left = moved;
  return false;
}

/* A changed line left the level before: the next that has it keeps the change, or memory does. */
static void write_back(size_t level, uint64_t line, uint64_t *events) {
  for (; level < LEVELS && levels[level].lines; ++level) {
    uint64_t *set = set_of(&levels[level], line);
    for (uint64_t way = 0; way < levels[level].ways; ++way) {
      if (set[way] >> 1 != line + 1) continue;
      set[way] |= 1;
      return;
    }
  }
  ++events[DIRTY];
}

/* Streams of lines that a prefetcher sees coming: the last line of each. Steps are as wide as those
   that the Cortex-A53's manual tells of its prefetcher, four lines either way; how many streams it
   follows at once no manual of these cores tells. */
enum { STREAMS = 16, WIDEST_STEP = 4 };
static uint64_t streams[STREAMS], newest_stream;

static bool follows(uint64_t line) {
  for (size_t i = 0; i < STREAMS; ++i) {
    if (line + WIDEST_STEP - streams[i] > 2 * WIDEST_STEP) continue;
    streams[i] = line;
    return true;
  }
  newest_stream = (newest_stream + 1) % STREAMS;
  streams[newest_stream] = line;
  return false;
}

static void fetch_line(uint64_t line, bool is_store, uint64_t *events) {
  uint64_t left;
  for (size_t level = 0; level < LEVELS && levels[level].lines; ++level) {
    const bool is_there = touch(&levels[level], line, is_store && !level, &left);
    if (left & 1) write_back(level + 1, (left >> 1) - 1, events);
    if (is_there) return;
    ++events[level ? SECOND + level - 1 : follows(line) ? FOLLOWING : STARTING];
  }
}

/* ---- loads that wait for stores ---- */

/* So many stores are taken to be under way. With 16, copies that are read much later counted, and
   first convolutions were ranked worse (seeds 1 and 11 of validate_score.py). */
enum { STORES = 4, LONGEST_ACCESS = 64 };
struct access {
  uint64_t begin, end;
  const struct site *site;
};
static struct access stores[STORES], load; /* the latest; stores in turn */
static uint64_t newest;
static bool load_waits;

/* QEMU hands long vectors over in pieces: whether this is the next of what one instruction does. */
static bool extend(struct access *access, uint64_t begin, uint64_t end, const struct site *site) {
  const bool next = access->site == site && access->end == begin &&
                    end - access->begin <= LONGEST_ACCESS;
  if (next) access->end = end;
  return next;
}

/* Whether the latest store that wrote some of the load's bytes did not write them all. */
static bool waits(void) {
  for (uint64_t age = 0; age < STORES; ++age) {
    const struct access *store = &stores[(newest + STORES - age) % STORES];
    if (store->begin < load.end && load.begin < store->end)
      return load.begin < store->begin || store->end < load.end;
  }
  return false;
}

static void note_access(bool is_store, uint64_t begin, uint64_t end, const struct site *site) {
  if (is_store) {
    load.site = NULL;
    if (extend(&stores[newest], begin, end, site)) return;
    newest = (newest + 1) % STORES;
    stores[newest] = (struct access){begin, end, site};
    return;
  }
  if (!extend(&load, begin, end, site)) {
    load = (struct access){begin, end, site};
    load_waits = false;
  }
  if (load_waits || !waits()) return;
  load_waits = true;
  ++site->block->events[BLOCKED];
}

static void on_access(unsigned vcpu, qemu_plugin_meminfo_t info, uint64_t address, void *data) {
  (void)vcpu;
  const struct site *site = data;
  const bool is_store = qemu_plugin_mem_is_store(info);
  const uint64_t last = address + (1u << qemu_plugin_mem_size_shift(info)) - 1;
  uint64_t left, *events = site->block->events;
  note_access(is_store, address, last + 1, site);
  for (uint64_t page = address >> PAGE_SHIFT; page <= last >> PAGE_SHIFT; ++page)
    events[PAGES] += !touch(&pages, page, false, &left);
  for (uint64_t line = address >> LINE_SHIFT; line <= last >> LINE_SHIFT; ++line)
    fetch_line(line, is_store, events);
}

/* Make a cache that is empty; false if there is none of that shape. */
static bool make_cache(struct cache *cache, uint64_t sets, uint64_t ways) {
  free(cache->lines);
  *cache = (struct cache){sets, ways, NULL};
  const bool is_power_of_two = sets && !(sets & (sets - 1));
  if (!is_power_of_two || sets > MOST_SETS || !ways || ways > MOST_WAYS) return false;
  cache->lines = calloc(sets * ways, sizeof *cache->lines);
  return cache->lines != NULL;
}

static void empty_cache(struct cache *cache) {
  if (cache->lines) memset(cache->lines, 0, cache->sets * cache->ways * sizeof *cache->lines);
}

static void forget(void) {
  for (size_t level = 0; level < LEVELS; ++level) empty_cache(&levels[level]);
  empty_cache(&pages);
}

static bool unpack_cache(struct cache *cache, uint64_t shape) {
  return make_cache(cache, shape / 256, shape % 256);
}

static bool read_cache(const char *text, const char *name, struct cache *cache) {
  const size_t length = strlen(name);
  if (strncmp(text, name, length)) return true;
  uint64_t sets, ways;
  return sscanf(text + length, "%" SCNu64 ":%" SCNu64, &sets, &ways) == 2 &&
         make_cache(cache, sets, ways);
}

/* QEMU translates under a lock in user mode, so the table needs none of its own. */
static void on_translate(qemu_plugin_id_t id, struct qemu_plugin_tb *tb) {
  (void)id;
  const uint64_t address = qemu_plugin_tb_vaddr(tb);
  const size_t count = qemu_plugin_tb_n_insns(tb);
  const struct qemu_plugin_insn *last = qemu_plugin_tb_get_insn(tb, count - 1);
  const uint64_t end = qemu_plugin_insn_vaddr(last) + qemu_plugin_insn_size(last);
  struct block *b = find_block(address, end - address, count);
  qemu_plugin_register_vcpu_tb_exec_inline(tb, QEMU_PLUGIN_INLINE_ADD_U64, &b->executions, 1);
  if (!levels[0].lines) return;
  struct site *sites = calloc(count, sizeof *sites); /* for as long as the translated code */
  if (!sites) abort();
  for (size_t i = 0; i < count; ++i) {
    struct qemu_plugin_insn *one = qemu_plugin_tb_get_insn(tb, i);
    sites[i] = (struct site){b, qemu_plugin_insn_vaddr(one)};
    qemu_plugin_register_vcpu_mem_cb(one, on_access, QEMU_PLUGIN_CB_NO_REGS, QEMU_PLUGIN_MEM_RW,
                                     &sites[i]);
  }
}

static void clear_counts(void) {
  for (int i = 0; i < BUCKETS; ++i)
    for (struct block *b = buckets[i]; b; b = b->next) {
      b->executions = 0;
      memset(b->events, 0, sizeof b->events);
    }
}

static void write_block(FILE *file, const struct block *b) {
  fprintf(file, "%" PRIx64 " %" PRIu64 " %" PRIu64 " %" PRIu64, b->address, b->bytes,
          b->instructions, b->executions);
  for (int event = 0; levels[0].lines && event < EVENTS; ++event)
    fprintf(file, " %" PRIu64, b->events[event]);
  fprintf(file, "\n");
}

static void write_counts(void) {
  char path[4096];
  snprintf(path, sizeof path, "%s.%d", out_prefix, (int)getpid());
  FILE *file = fopen(path, "w");
  if (!file) {
    perror(path);
    return;
  }
  for (int i = 0; i < BUCKETS; ++i)
    for (struct block *b = buckets[i]; b; b = b->next)
      if (b->executions && b->address >= range_low && b->address < range_high)
        write_block(file, b);
  fprintf(file, "end\n");
  fclose(file);
}

static void register_callbacks(qemu_plugin_id_t id);

/* What was translated before knows no caches: QEMU drops it all and translates anew. */
static void simulate(qemu_plugin_id_t id, uint64_t l1, uint64_t l2, uint64_t l3, uint64_t places) {
  const bool is_new = !levels[0].lines;
  const bool has_third = unpack_cache(&levels[2], l3);
  const bool is_whole = unpack_cache(&levels[0], l1) && unpack_cache(&levels[1], l2) &&
                        (has_third || !l3) && unpack_cache(&pages, places);
  if (!is_whole) {
    fprintf(stderr, "counter: no such caches\n");
    abort();
  }
  if (is_new) qemu_plugin_reset(id, register_callbacks);
}

static void on_syscall(qemu_plugin_id_t id, unsigned vcpu, int64_t number, uint64_t a1, uint64_t a2,
                       uint64_t a3, uint64_t a4, uint64_t a5, uint64_t a6, uint64_t a7,
                       uint64_t a8) {
  (void)vcpu, (void)a5, (void)a6, (void)a7, (void)a8;
  if (number == MARK_BEGIN) {
    range_low = a1, range_high = a2;
    clear_counts();
  } else if (number == MARK_END) {
    write_counts();
  } else if (number == MARK_SIMULATE) {
    simulate(id, a1, a2, a3, a4);
  } else if (number == MARK_FORGET) {
    forget();
  }
}

static void register_callbacks(qemu_plugin_id_t id) {
  qemu_plugin_register_vcpu_tb_trans_cb(id, on_translate);
  qemu_plugin_register_vcpu_syscall_cb(id, on_syscall);
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc,
                               char **argv) {
  (void)info;
  bool good = true;
  for (int i = 0; i < argc; ++i) {
    if (!strncmp(argv[i], "out=", 4)) snprintf(out_prefix, sizeof out_prefix, "%s", argv[i] + 4);
    good = good && read_cache(argv[i], "l1=", &levels[0]) && read_cache(argv[i], "l2=", &levels[1]) &&
           read_cache(argv[i], "pages=", &pages);
  }
  if (!*out_prefix || !good || !levels[0].lines != !levels[1].lines || !levels[0].lines != !pages.lines) {
    fprintf(stderr, "counter: give out=FILE, and no cache or l1=SETS:WAYS,l2=..,pages=..\n");
    return -1;
  }
  register_callbacks(id);
  return 0;
}
