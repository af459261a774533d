/* Calls one compiled kernel on an emulated core and marks the last call for counter.c.
 *
 * Freestanding Linux for AArch64 and x86-64: no libc, no TVM runtime.  Linked statically with the kernel's object,
 * whose entry the linker names `kernel_entry`.  Arguments: how many calls to make before the marked
 * one, then one per tensor, "CODE.BITS:DIM,DIM,...", with CODE as in DLPack.  Exit status: 0, or 3 when the kernel returned an error (its message is
 * on stderr), 4 when an argument is malformed or memory ran out.
 *
 * Layouts follow tvm/ffi/c_api.h and dlpack.h of apache-tvm-ffi 0.1.14.
 */
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long u64;
typedef int i32;
typedef long i64;

enum { MARK_BEGIN = 7001, MARK_END = 7002, MARK_FORGET = 7004 };
#ifdef __aarch64__
enum { SYS_WRITE = 64, SYS_EXIT = 93, SYS_MUNMAP = 215, SYS_MMAP = 222 };
#else
enum { SYS_WRITE = 1, SYS_EXIT = 60, SYS_MUNMAP = 11, SYS_MMAP = 9 };
#endif
enum { KERNEL_ERROR = 3, RUNNER_ERROR = 4 };
enum { MAX_ARGUMENTS = 32, MAX_DIMS = 16, STACK_BYTES = 8 << 20 };
enum { TYPE_DLTENSOR_PTR = 7, DEVICE_CPU = 1, DL_INT = 0, DL_FLOAT = 2, DL_BFLOAT = 4 };

typedef struct {
  i32 type_index;
  u32 padding;
  void *value;
} Any;

typedef struct {
  void *data;
  i32 device_type, device_id;
  i32 ndim;
  u8 code, bits;
  u16 lanes;
  i64 *shape, *strides;
  u64 byte_offset;
} Tensor;

extern int kernel_entry(void *self, const Any *args, i32 num_args, Any *result);
extern char helpers_begin[], image_end[];

#ifdef __aarch64__
static i64 syscall6(i64 number, i64 a, i64 b, i64 c, i64 d, i64 e, i64 f) {
  register i64 x8 __asm__("x8") = number;
  register i64 x0 __asm__("x0") = a;
  register i64 x1 __asm__("x1") = b;
  register i64 x2 __asm__("x2") = c;
  register i64 x3 __asm__("x3") = d;
  register i64 x4 __asm__("x4") = e;
  register i64 x5 __asm__("x5") = f;
  __asm__ volatile("svc #0"
                   : "+r"(x0)
                   : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5)
                   : "memory");
  return x0;
}
#else
static i64 syscall6(i64 number, i64 a, i64 b, i64 c, i64 d, i64 e, i64 f) {
  register i64 r10 __asm__("r10") = d;
  register i64 r8 __asm__("r8") = e;
  register i64 r9 __asm__("r9") = f;
  i64 result;
  __asm__ volatile("syscall"
                   : "=a"(result)
                   : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                   : "rcx", "r11", "memory");
  return result;
}
#endif

static void leave(int status) {
  for (;;) syscall6(SYS_EXIT, status, 0, 0, 0, 0, 0);
}

static void say(const char *text) {
  u64 length = 0;
  while (text[length]) ++length;
  syscall6(SYS_WRITE, 2, (i64)text, (i64)length, 0, 0, 0);
}

static void *map_pages(u64 bytes) {
  const i64 read_write = 3, private_anonymous = 0x22;
  i64 address = syscall6(SYS_MMAP, 0, (i64)bytes, read_write, private_anonymous, -1, 0);
  if (address < 0 && address > -4096) {
    say("out of memory");
    leave(RUNNER_ERROR);
  }
  return (void *)address;
}

/* ---- what a kernel may call.  In a section of its own, counted apart from the kernel's code. ---- */

#define HELPER __attribute__((section(".text.helpers"), used, noinline))
typedef u64 vec __attribute__((vector_size(16), aligned(1)));

HELPER void *memcpy(void *restrict to, const void *restrict from, u64 n) {
  u8 *d = to;
  const u8 *s = from;
  /* 64 bytes a step, as the C library of a board does it. */
  for (; n >= 64; n -= 64, d += 64, s += 64) {
    const vec a = ((const vec *)s)[0], b = ((const vec *)s)[1];
    const vec c = ((const vec *)s)[2], e = ((const vec *)s)[3];
    ((vec *)d)[0] = a, ((vec *)d)[1] = b, ((vec *)d)[2] = c, ((vec *)d)[3] = e;
  }
  for (; n >= 16; n -= 16, d += 16, s += 16) *(vec *)d = *(const vec *)s;
  for (; n; --n) {
    *d++ = *s++;
    __asm__ volatile("");
  }
  return to;
}

HELPER void *memmove(void *to, const void *from, u64 n) {
  u8 *d = to;
  const u8 *s = from;
  if (d <= s || d >= s + n) return memcpy(to, from, n);
  while (n--) {
    d[n] = s[n];
    __asm__ volatile("");
  }
  return to;
}

HELPER void *memset(void *to, int value, u64 n) {
  u8 *d = to;
  const u64 word = 0x0101010101010101ul * (u8)value;
  const vec wide = {word, word};
  for (; n >= 64; n -= 64, d += 64)
    ((vec *)d)[0] = wide, ((vec *)d)[1] = wide, ((vec *)d)[2] = wide, ((vec *)d)[3] = wide;
  for (; n >= 16; n -= 16, d += 16) *(vec *)d = wide;
  for (; n; --n) {
    *d++ = (u8)value;
    __asm__ volatile("");
  }
  return to;
}

/* The size stands in the 64 bytes before what the kernel gets, which keeps its alignment. */
HELPER void *TVMBackendAllocWorkspace(int type, int id, u64 bytes, int code, int bits) {
  (void)type, (void)id, (void)code, (void)bits;
  u64 *block = map_pages(bytes + 64);
  *block = bytes + 64;
  return (u8 *)block + 64;
}

HELPER int TVMBackendFreeWorkspace(int type, int id, void *pointer) {
  (void)type, (void)id;
  u64 *block = (u64 *)((u8 *)pointer - 64);
  syscall6(SYS_MUNMAP, (i64)block, (i64)*block, 0, 0, 0, 0);
  return 0;
}

typedef struct {
  void *sync_handle;
  i32 num_task;
} ParallelGroup;

/* One core: a parallel loop runs as a single task. */
HELPER int TVMBackendParallelLaunch(int (*body)(int, ParallelGroup *, void *), void *data, int n) {
  (void)n;
  ParallelGroup group = {0, 1};
  return body(0, &group, data);
}

HELPER int TVMBackendParallelBarrier(int task, ParallelGroup *group) {
  (void)task, (void)group;
  return 0;
}

HELPER void TVMFFIErrorSetRaisedFromCStrParts(const char *kind, const char **parts, i32 n) {
  say(kind);
  say(": ");
  for (i32 i = 0; i < n; ++i)
    if (parts[i]) say(parts[i]);
  say("\n");
}

HELPER void TVMFFIErrorSetRaisedFromCStr(const char *kind, const char *message) {
  TVMFFIErrorSetRaisedFromCStrParts(kind, &message, 1);
}

/* Stand-ins for the C library's functions: near enough that a softmax does not overflow. */

HELPER float expf(float x) {
  if (x > 88.0f) return 3.4e38f;
  if (x < -87.0f) return 0.0f;
  const float scaled = x * 1.44269504f;
  const i32 whole = (i32)(scaled < 0 ? scaled - 0.5f : scaled + 0.5f);
  const float r = x - (float)whole * 0.693147181f;
  union {
    u32 bits;
    float value;
  } power = {(u32)(whole + 127) << 23};
  return power.value *
         (1 + r * (1 + r * (0.5f + r * (0.16666667f + r * (0.041666667f + r * 0.0083333f)))));
}

HELPER float logf(float x) {
  union {
    float value;
    u32 bits;
  } parts = {x};
  const i32 exponent = (i32)(parts.bits >> 23) - 127;
  parts.bits = (parts.bits & 0x7fffff) | 0x3f800000;
  const float r = (parts.value - 1) / (parts.value + 1), square = r * r;
  return (float)exponent * 0.693147181f +
         2 * r * (1 + square * (0.33333333f + square * (0.2f + square * 0.14285714f)));
}

HELPER float powf(float x, float y) { return expf(y * logf(x)); }

HELPER float tanhf(float x) {
  const float e = expf(2 * x);
  return (e - 1) / (e + 1);
}

HELPER float erff(float x) { return tanhf(1.1283792f * x + 0.1009f * x * x * x); }

/* TVM's objects reach these through pointers, weak in the object, that the runtime would fill. */
void *__TVMBackendAllocWorkspace = (void *)TVMBackendAllocWorkspace;
void *__TVMBackendFreeWorkspace = (void *)TVMBackendFreeWorkspace;
void *__TVMBackendParallelLaunch = (void *)TVMBackendParallelLaunch;
void *__TVMBackendParallelBarrier = (void *)TVMBackendParallelBarrier;
void *__TVMFFIErrorSetRaisedFromCStr = (void *)TVMFFIErrorSetRaisedFromCStr;

/* ---- arguments ---- */

static i64 parse_number(const char **text) {
  i64 value = 0;
  if (**text < '0' || **text > '9') {
    say("malformed tensor argument");
    leave(RUNNER_ERROR);
  }
  for (; **text >= '0' && **text <= '9'; ++*text) value = value * 10 + (**text - '0');
  return value;
}

/* Small values with a short odd period: no overflow, no denormals, the same on every run. */
static void fill(const Tensor *t, u64 count) {
  for (u64 i = 0; i < count; ++i) {
    const int step = (int)(i % 17) - 8;
    if (t->code == DL_FLOAT && t->bits == 64) ((double *)t->data)[i] = step * 0.0625;
    else if (t->code == DL_FLOAT && t->bits == 32) ((float *)t->data)[i] = (float)step * 0.0625f;
    else if (t->code == DL_FLOAT) ((u16 *)t->data)[i] = i & 1 ? 0x3800 : 0xb800;  /* +-0.5 */
    else if (t->code == DL_BFLOAT) ((u16 *)t->data)[i] = i & 1 ? 0x3f00 : 0xbf00; /* +-0.5 */
    else if (t->bits == 64) ((u64 *)t->data)[i] = i % 2;
    else if (t->bits == 32) ((u32 *)t->data)[i] = (u32)(i % 2);
    else if (t->bits == 16) ((u16 *)t->data)[i] = (u16)(i % 2);
    else ((u8 *)t->data)[i] = (u8)(i % (t->code == DL_INT ? 5 : 2));
  }
}

/* Element by element only at first: the rest are copies, since emulated stores cost time. */
static void fill_all(const Tensor *t, u64 count) {
  const u64 first = 17 * 64, size = t->bits / 8u;
  fill(t, count < first ? count : first);
  for (u64 i = first; i < count; i += first)
    memcpy((u8 *)t->data + i * size, t->data, (count - i < first ? count - i : first) * size);
}

static u64 elements_of(const Tensor *t) {
  u64 count = 1;
  for (int d = 0; d < t->ndim; ++d) count *= (u64)t->shape[d];
  return count;
}

static void make_tensor(Tensor *t, i64 *dims, const char *text) {
  t->device_type = DEVICE_CPU;
  t->lanes = 1;
  t->code = (u8)parse_number(&text);
  ++text;
  t->bits = (u8)parse_number(&text);
  t->shape = dims;
  t->strides = dims + MAX_DIMS;
  while (*text && t->ndim < MAX_DIMS) {
    ++text;
    if (!*text) break;
    t->shape[t->ndim++] = parse_number(&text);
  }
  i64 stride = 1;
  for (int d = t->ndim - 1; d >= 0; --d) {
    t->strides[d] = stride;
    stride *= t->shape[d];
  }
  t->data = map_pages(elements_of(t) * ((t->bits + 7u) / 8u) + 64);
}

static int call_kernel(const Any *args, i32 n) {
  Any result = {0, 0, 0};
  return kernel_entry(0, args, n, &result);
}

/* QEMU computes floats by the host's units only once a result was inexact, which that of `fill`'s
 * values rarely is; before, by integers, at three times the cost. */
static void round_once(void) {
  volatile float third = 3;
  third = 1 / third;
}

__attribute__((used)) static void run(u64 *stack) {
  static Tensor tensors[MAX_ARGUMENTS];
  static i64 dims[MAX_ARGUMENTS][2 * MAX_DIMS];
  static Any args[MAX_ARGUMENTS];
  const i32 n = (i32)stack[0] - 2;
  if (n < 0 || n > MAX_ARGUMENTS) {
    say("give the number of calls before the count, and at most 32 tensors");
    leave(RUNNER_ERROR);
  }
  round_once();
  const char *before = (const char *)stack[2];
  for (i32 i = 0; i < n; ++i) {
    make_tensor(&tensors[i], dims[i], (const char *)stack[3 + i]);
    args[i] = (Any){TYPE_DLTENSOR_PTR, 0, &tensors[i]};
  }
  i64 calls = parse_number(&before);
  /* Where the arguments' text lies depends on the folder, too: no simulated cache is to hold it. */
  syscall6(MARK_FORGET, 0, 0, 0, 0, 0, 0);
  for (i32 i = 0; i < n; ++i) fill_all(&tensors[i], elements_of(&tensors[i]));
  for (; calls > 0; --calls)
    if (call_kernel(args, n)) leave(KERNEL_ERROR);
  syscall6(MARK_BEGIN, (i64)helpers_begin, (i64)image_end, 0, 0, 0, 0);
  const int status = call_kernel(args, n);
  syscall6(MARK_END, 0, 0, 0, 0, 0, 0);
  leave(status ? KERNEL_ERROR : 0);
}

/* On a stack of its own: the one that the system gives begins below the environment, so that which lines of a cache it
 * takes would depend on the machine and the folder. */
__attribute__((used)) static void begin(u64 *given) {
  u8 *top = (u8 *)map_pages(STACK_BYTES) + STACK_BYTES;
#ifdef __aarch64__
  __asm__ volatile("mov x0, %0\n mov sp, %1\n b run" : : "r"(given), "r"(top) : "x0");
#else
  __asm__ volatile("mov %0, %%rdi\n mov %1, %%rsp\n call run" : : "r"(given), "r"(top) : "rdi");
#endif
}

__attribute__((naked, noreturn)) void _start(void) {
#ifdef __aarch64__
  __asm__ volatile("mov x0, sp\n b begin");
#else
  __asm__ volatile("mov %rsp, %rdi\n and $-16, %rsp\n call begin");
#endif
}
