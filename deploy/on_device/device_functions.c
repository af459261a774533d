/* Functions in the calling convention of tvm/ffi/c_api.h.  Strings and tensors come over RPC as bare
   pointers, from callers in this process as objects: both are taken. */
#include "device_functions.h"

#include <dlfcn.h>
#include <limits.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <tvm/ffi/c_api.h>
#include <unistd.h>

#include "loaded_libraries.h"
#include "processor.h"

enum {
  CACHES = 4,
  MOST_TENSORS = 32,
  LONGEST_MESSAGE = 1024,
  LONGEST_COMPLAINT = 300,
  LONGEST_SYMBOL = 512,
  MOST_THREADS = 64,
  FASTEST_CORES = 1 /* a mode of TVM's pool */
};

/* ---- values ---- */

__attribute__((format(printf, 1, 2))) static int fail(const char *format, ...) {
  char text[LONGEST_MESSAGE];
  va_list values;
  va_start(values, format);
  vsnprintf(text, sizeof text, format, values);
  va_end(values);
  TVMFFIErrorSetRaisedFromCStr("RuntimeError", text);
  return -1;
}

static TVMFFIByteArray bytes_of(const char *text) {
  return (TVMFFIByteArray){text, strlen(text)};
}

static int give_text(const char *text, TVMFFIAny *result) {
  const TVMFFIByteArray bytes = bytes_of(text);
  return TVMFFIStringFromByteArray(&bytes, result);
}

/* Give a text that was allocated, and free it. */
static int give_allocated(char *text, TVMFFIAny *result) {
  const int status = text ? give_text(text, result) : fail("the device has no memory left");
  free(text);
  return status;
}

static int give_number(int64_t number, TVMFFIAny *result) {
  *result = (TVMFFIAny){.type_index = kTVMFFIInt, .v_int64 = number};
  return 0;
}

/* What follows the header of a string's or a tensor's object. */
static const void *content(const TVMFFIAny *value) { return value->v_obj + 1; }

/* Copy a string; false if the value is none, or longer than there is room for. */
static bool take_text(const TVMFFIAny *value, char *text, size_t size) {
  TVMFFIByteArray bytes;
  if (value->type_index == kTVMFFIRawStr)
    bytes = bytes_of(value->v_c_str);
  else if (value->type_index == kTVMFFISmallStr)
    bytes = (TVMFFIByteArray){value->v_bytes, value->small_str_len};
  else if (value->type_index == kTVMFFIStr)
    bytes = *(const TVMFFIByteArray *)content(value);
  else
    return false;
  if (bytes.size >= size || memchr(bytes.data, 0, bytes.size)) return false;
  memcpy(text, bytes.data, bytes.size);
  text[bytes.size] = 0;
  return true;
}

static bool take_data(const TVMFFIAny *value, void **data) {
  const DLTensor *tensor;
  if (value->type_index == kTVMFFIDLTensorPtr)
    tensor = value->v_ptr;
  else if (value->type_index == kTVMFFITensor)
    tensor = content(value);
  else
    return false;
  *data = (char *)tensor->data + tensor->byte_offset;
  return true;
}

/* The path of a file of this session: a relative name lies in its folder. */
static bool take_path(const TVMFFIAny *value, char *path, size_t size) {
  char name[PATH_MAX];
  if (!take_text(value, name, sizeof name)) return false;
  if (*name == '/') return snprintf(path, size, "%s", name) < (int)size;
  if (!getcwd(path, size)) return false;
  const size_t used = strlen(path);
  return snprintf(path + used, size - used, "/%s", name) < (int)(size - used);
}

/* ---- what TVM's server asks for ---- */

static int workpath(void *self, const TVMFFIAny *values, int32_t count, TVMFFIAny *result) {
  (void)self;
  char path[PATH_MAX];
  if (count != 1 || !take_path(values, path, sizeof path))
    return fail("tvm.rpc.server.workpath takes one name");
  return give_text(path, result);
}

static int call_global(const char *name, TVMFFIAny *values, int32_t count, TVMFFIAny *result) {
  const TVMFFIByteArray bytes = bytes_of(name);
  TVMFFIObjectHandle function = NULL;
  if (TVMFFIFunctionGetGlobal(&bytes, &function) || !function)
    return fail("TVM's runtime has no function %s", name);
  const int status = TVMFFIFunctionCall(function, values, count, result);
  TVMFFIObjectDecRef(function);
  return status;
}

static int load_module(void *self, const TVMFFIAny *values, int32_t count, TVMFFIAny *result) {
  (void)self;
  char path[PATH_MAX];
  if (count != 1 || !take_path(values, path, sizeof path))
    return fail("tvm.rpc.server.load_module takes one name");
  /* Not by access(2), which PRoot 5.1 answers wrongly. */
  struct stat found;
  if (stat(path, &found)) return fail("there is no file %s", path);
  TVMFFIAny argument = {.type_index = kTVMFFIRawStr, .v_c_str = path};
  return call_global("ffi.ModuleLoadFromFile", &argument, 1, result);
}

/* ---- this project's own ---- */

static int describe(void *self, const TVMFFIAny *values, int32_t count, TVMFFIAny *result) {
  (void)values, (void)count;
  return give_allocated(describe_device(self), result);
}

static int processor(void *self, const TVMFFIAny *values, int32_t count, TVMFFIAny *result) {
  (void)self, (void)values, (void)count;
  return give_allocated(describe_processor(), result);
}

/* Let networks of this session compute with so many threads; gives how many there are.

   A session that is pinned to a core stays there.  Threads are as TVM makes them the first time: they
   inherit where the one that asks may run, which are then cores with nearly the same clock. */
static int use_threads(void *self, const TVMFFIAny *values, int32_t count, TVMFFIAny *result) {
  const struct device *device = self;
  if (count != 1 || values->type_index != kTVMFFIInt || values->v_int64 < 1 ||
      values->v_int64 > MOST_THREADS)
    return fail("shuffledeploy.use_threads takes a number from 1 to %d", MOST_THREADS);
  const int threads = (int)values->v_int64;
  char text[8];
  snprintf(text, sizeof text, "%d", threads);
  setenv("TVM_NUM_THREADS", text, true);
  /* Threads that wait would take the emulator's time, and the count of instructions would have them. */
  if (device->is_emulated) setenv("TVM_THREAD_POOL_SPIN_COUNT", "0", true);
  cpu_set_t allowed;
  const bool is_pinned = device->core >= 0 && threads > 1 &&
                         !sched_getaffinity(getppid(), sizeof allowed, &allowed);
  if (is_pinned) {
    const cpu_set_t beside = cores_beside(device->core, allowed, threads - 1);
    if (CPU_COUNT(&beside)) sched_setaffinity(0, sizeof beside, &beside);
  }
  TVMFFIAny settings[] = {{.type_index = kTVMFFIInt, .v_int64 = FASTEST_CORES},
                          {.type_index = kTVMFFIInt, .v_int64 = threads}};
  TVMFFIAny nothing = {0};
  const int status = call_global("runtime.config_threadpool", settings, 2, &nothing);
  if (is_pinned && !pin_to_core(device->core)) return fail("cannot pin to core %d", device->core);
  return status ? status : call_global("runtime.NumThreads", NULL, 0, result);
}

/* Start counting in a library, or in everything if its name is empty; gives the library's address. */
static int count_begin(void *self, const TVMFFIAny *values, int32_t count, TVMFFIAny *result) {
  (void)self;
  char library[NAME_MAX];
  uint64_t low = 0, high = INT64_MAX;
  if (count != 1 || !take_text(values, library, sizeof library))
    return fail("shuffledeploy.count_begin takes the name of a library");
  if (*library && !find_library(library, &low, &high))
    return fail("this session has not loaded %s", library);
  begin_counting(low, high);
  return give_number((int64_t)low, result);
}

/* Simulate caches in this session from now on: three levels and places of pages, as counter.c has it. */
static int simulate(void *self, const TVMFFIAny *values, int32_t count, TVMFFIAny *result) {
  const struct device *device = self;
  uint64_t shapes[CACHES];
  if (!*device->counts) return fail("nothing simulates caches on this device");
  if (count != CACHES) return fail("shuffledeploy.simulate_caches takes %d numbers", CACHES);
  for (int32_t at = 0; at < CACHES; ++at) {
    if (values[at].type_index != kTVMFFIInt) return fail("argument %d is no number", at);
    shapes[at] = (uint64_t)values[at].v_int64;
  }
  simulate_caches(shapes);
  return give_number(0, result);
}

/* Stop counting; gives the plugin's report. */
static int count_end(void *self, const TVMFFIAny *values, int32_t count, TVMFFIAny *result) {
  (void)values, (void)count;
  const struct device *device = self;
  end_counting();
  if (!*device->counts) return fail("nothing counts instructions on this device");
  char *report = take_report(device->counts);
  return report ? give_allocated(report, result) : fail("the plugin wrote no counts");
}

/* Arguments that a function does not have are passed in registers and on the stack, where it does not
   look: so it is in the calling conventions of both architectures. */
typedef int c_function(void *, void *, void *, void *, void *, void *, void *, void *, void *, void *,
                       void *, void *, void *, void *, void *, void *, void *, void *, void *, void *,
                       void *, void *, void *, void *, void *, void *, void *, void *, void *, void *,
                       void *, void *);

/* Call a function of a plain C library with the addresses of the tensors' data; gives its result. */
static int call_c(void *self, const TVMFFIAny *values, int32_t count, TVMFFIAny *result) {
  (void)self;
  char path[PATH_MAX], symbol[LONGEST_SYMBOL];
  if (count < 2 || !take_path(&values[0], path, sizeof path) ||
      !take_text(&values[1], symbol, sizeof symbol))
    return fail("shuffledeploy.call_c takes a library, a symbol and tensors");
  if (count - 2 > MOST_TENSORS) return fail("%s: at most %d tensors", symbol, MOST_TENSORS);
  void *d[MOST_TENSORS] = {NULL};
  for (int32_t at = 2; at < count; ++at)
    if (!take_data(&values[at], &d[at - 2])) return fail("%s: argument %d is no tensor", symbol, at);
  void *library = open_once(path);
  if (!library) return fail("cannot load %s: %s", path, dlerror());
  void *found = dlsym(library, symbol);
  if (!found) return fail("%s has no symbol %s", path, symbol);
  c_function *function;
  memcpy(&function, &found, sizeof function);
  return give_number(
      function(d[0], d[1], d[2], d[3], d[4], d[5], d[6], d[7], d[8], d[9], d[10], d[11], d[12],
               d[13], d[14], d[15], d[16], d[17], d[18], d[19], d[20], d[21], d[22], d[23], d[24],
               d[25], d[26], d[27], d[28], d[29], d[30], d[31]),
      result);
}

/* ---- registration, sessions ---- */

static const struct {
  const char *name;
  TVMFFISafeCallType call;
} FUNCTIONS[] = {
    {"tvm.rpc.server.workpath", workpath},      {"tvm.rpc.server.load_module", load_module},
    {"shuffledeploy.describe", describe},       {"shuffledeploy.processor", processor},
    {"shuffledeploy.count_begin", count_begin}, {"shuffledeploy.count_end", count_end},
    {"shuffledeploy.simulate_caches", simulate}, {"shuffledeploy.call_c", call_c},
    {"shuffledeploy.use_threads", use_threads},
};

/* Say what TVM's runtime raised. */
static bool complain(const char *what) {
  TVMFFIObjectHandle error = NULL;
  TVMFFIErrorMoveFromRaised(&error);
  TVMFFIByteArray said = {"", 0};
  if (error) said = ((const TVMFFIErrorCell *)((TVMFFIObject *)error + 1))->message;
  const int size = said.size < LONGEST_COMPLAINT ? (int)said.size : LONGEST_COMPLAINT;
  fprintf(stderr, "%s: %.*s\n", what, size, said.data);
  if (error) TVMFFIObjectDecRef(error);
  return false;
}

bool register_functions(struct device *device) {
  for (size_t place = 0; place < sizeof FUNCTIONS / sizeof *FUNCTIONS; ++place) {
    const TVMFFIByteArray name = bytes_of(FUNCTIONS[place].name);
    TVMFFIObjectHandle function = NULL;
    if (TVMFFIFunctionCreate(device, FUNCTIONS[place].call, NULL, &function) ||
        TVMFFIFunctionSetGlobal(&name, function, true))
      return complain("cannot register a function");
    TVMFFIObjectDecRef(function);
  }
  return true;
}

bool serve_client(int socket) {
  TVMFFIAny argument = {.type_index = kTVMFFIInt, .v_int64 = socket}, result = {0};
  return !call_global("rpc.ServerLoop", &argument, 1, &result) || complain("session lost");
}

void tell_client(int socket, const char *text) {
  TVMFFIAny values[] = {{.type_index = kTVMFFIInt, .v_int64 = socket},
                        {.type_index = kTVMFFIRawStr, .v_c_str = text}};
  TVMFFIAny result = {0};
  if (call_global("rpc.ReturnException", values, 2, &result)) complain("a client was not told");
}
