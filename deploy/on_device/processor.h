/* A device's processor: its cores, their clocks, its temperature, and whether it is emulated.
 *
 * Shared by what runs on devices; needs -D_GNU_SOURCE.  A number that the device does not tell is
 * UNKNOWN.  Sources: Linux, Documentation/ABI/testing/sysfs-devices-system-cpu and sysfs-class-
 * thermal.
 */
#ifndef SHUFFLEDEPLOY_PROCESSOR_H
#define SHUFFLEDEPLOY_PROCESSOR_H

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/wait.h>
#include <unistd.h>

enum { UNKNOWN = -1, ANY_CORE = -1, NO_SUCH_CORE = -2, MOST_ZONES = 256 };

/* ---- small files ---- */

/* The first bytes of a file, at most size - 1, always ended; false if it cannot be read. */
static inline bool read_start(const char *path, char *text, size_t size) {
  const int file = open(path, O_RDONLY | O_CLOEXEC);
  const ssize_t got = file < 0 ? -1 : read(file, text, size - 1);
  if (file >= 0) close(file);
  text[got > 0 ? got : 0] = 0;
  return got > 0;
}

static inline long read_number(const char *path) {
  char text[32], *end;
  if (!read_start(path, text, sizeof text)) return UNKNOWN;
  const long number = strtol(text, &end, 10);
  return end == text || number < 0 ? UNKNOWN : number;
}

/* ---- cores and clocks ---- */

static inline long core_clock(int core, const char *which) {
  char path[96];
  snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/cpufreq/%s", core, which);
  return read_number(path);
}

/* In kHz. */
static inline long present_clock(int core) { return core_clock(core, "scaling_cur_freq"); }
static inline long highest_clock(int core) { return core_clock(core, "cpuinfo_max_freq"); }

/* The allowed core with the highest clock, or with the lowest; ANY_CORE if none can be told.  Of
   equals, big takes the last and little the first: so are they numbered on most ARM chips. */
static inline int extreme_core(const cpu_set_t *allowed, bool is_big) {
  int found = ANY_CORE;
  long best = UNKNOWN;
  for (int core = 0; core < CPU_SETSIZE; ++core) {
    if (!CPU_ISSET((size_t)core, allowed)) continue;
    const long clock = highest_clock(core);
    if (found == ANY_CORE || (is_big ? clock >= best : clock < best)) found = core, best = clock;
  }
  return found;
}

/* The core that "big", "little", "any" or a number means, as far as this process may run there. */
static inline int choose_core(const char *wish) {
  cpu_set_t allowed;
  if (!strcmp(wish, "any")) return ANY_CORE;
  if (sched_getaffinity(0, sizeof allowed, &allowed)) return NO_SUCH_CORE;
  if (!strcmp(wish, "big")) return extreme_core(&allowed, true);
  if (!strcmp(wish, "little")) return extreme_core(&allowed, false);
  char *end;
  const long core = strtol(wish, &end, 10);
  const bool is_number = isdigit((unsigned char)*wish) && !*end && core < CPU_SETSIZE;
  return is_number && CPU_ISSET((size_t)core, &allowed) ? (int)core : NO_SUCH_CORE;
}

/* Keep this process, and what it starts, on one core. */
static inline bool pin_to_core(int core) {
  cpu_set_t only;
  CPU_ZERO(&only);
  CPU_SET((size_t)core, &only);
  return !sched_setaffinity(0, sizeof only, &only);
}

/* Of some cores, so many beside one of them: those whose highest clocks are nearest to its own. */
static inline cpu_set_t cores_beside(int core, cpu_set_t allowed, int count) {
  cpu_set_t chosen;
  CPU_ZERO(&chosen);
  CPU_CLR((size_t)core, &allowed);
  while (count-- > 0 && CPU_COUNT(&allowed) > 0) {
    int nearest = NO_SUCH_CORE;
    long least = 0;
    for (int other = 0; other < CPU_SETSIZE; ++other) {
      if (!CPU_ISSET((size_t)other, &allowed)) continue;
      const long apart = labs(highest_clock(other) - highest_clock(core));
      if (nearest == NO_SUCH_CORE || apart < least) nearest = other, least = apart;
    }
    CPU_SET((size_t)nearest, &chosen);
    CPU_CLR((size_t)nearest, &allowed);
  }
  return chosen;
}

/* ---- temperature ---- */

/* Whether a thermal zone's type names the processor, as "cpu-1-0-usr" and "x86_pkg_temp" do. */
static inline bool is_cpu_zone(const char *type) {
  return strcasestr(type, "cpu") || strcasestr(type, "pkg_temp") || strcasestr(type, "soc");
}

/* The temperature in millidegrees Celsius of the hottest zone of the processor; if no zone is known
   to be the processor's, of the hottest zone.  A value that no running chip has is left out. */
static inline long temperature(void) {
  long of_cpu = UNKNOWN, of_any = UNKNOWN;
  for (int zone = 0; zone < MOST_ZONES; ++zone) {
    char path[64], type[64];
    snprintf(path, sizeof path, "/sys/class/thermal/thermal_zone%d/type", zone);
    if (!read_start(path, type, sizeof type)) break;
    snprintf(path, sizeof path, "/sys/class/thermal/thermal_zone%d/temp", zone);
    const long value = read_number(path);
    if (value < 1000 || value > 150000) continue;
    if (value > of_any) of_any = value;
    if (is_cpu_zone(type) && value > of_cpu) of_cpu = value;
  }
  return of_cpu == UNKNOWN ? of_any : of_cpu;
}

/* ---- Android's properties, emulation ---- */

/* A property of an Android device, at most size - 1 bytes of it; empty where there is none. */
static inline void android_property(const char *name, char *value, size_t size) {
  int ends[2];
  *value = 0;
  /* Whether there is such a program shows as it is started: PRoot 5.1 answers access wrongly. */
  if (pipe2(ends, O_CLOEXEC)) return;
  const pid_t child = fork();
  if (!child) {
    dup2(ends[1], STDOUT_FILENO);
    execl("/system/bin/getprop", "getprop", name, (char *)NULL);
    _exit(127);
  }
  close(ends[1]);
  size_t got = 0;
  for (ssize_t more = 1; child > 0 && more > 0 && got < size - 1; got += more > 0 ? (size_t)more : 0)
    while ((more = read(ends[0], value + got, size - 1 - got)) < 0 && errno == EINTR) continue;
  close(ends[0]);
  while (child > 0 && waitpid(child, NULL, 0) < 0 && errno == EINTR) continue;
  value[got] = 0;
  value[strcspn(value, "\r\n")] = 0;
}

/* What the device calls itself, as JSON and a terminal take it; empty where it does not tell. */
static inline void device_name(bool is_emulated, char *name, size_t size) {
  android_property("ro.product.model", name, size);
  /* Under an emulator this would be the name of the machine that it runs on. */
  if (!*name && !is_emulated) read_start("/proc/device-tree/model", name, size);
  for (; *name; ++name)
    if (*name < ' ' || *name > '~' || *name == '"' || *name == '\\') *name = '?';
}

/* Whether the kernel runs another program than this one: then that is an emulator.  QEMU answers for
   /proc/self/exe, but not for /proc/thread-self/exe. */
static inline bool is_run_by_another_program(void) {
#ifdef __aarch64__
  const unsigned machine = 183;
#else
  const unsigned machine = 62;
#endif
  char told[4096], real[4096];
  const ssize_t told_size = readlink("/proc/self/exe", told, sizeof told);
  const ssize_t real_size = readlink("/proc/thread-self/exe", real, sizeof real);
  if (told_size < 0 || real_size < 0) return false;
  if (told_size != real_size || memcmp(told, real, (size_t)told_size)) return true;
  unsigned char header[20];
  const int file = open("/proc/thread-self/exe", O_RDONLY | O_CLOEXEC);
  const ssize_t got = file < 0 ? -1 : read(file, header, sizeof header);
  if (file >= 0) close(file);
  return got == sizeof header && (header[18] | header[19] << 8u) != (int)machine;
}

/* Whether this processor is known to be emulated.  Linux gives every program a vDSO, which QEMU 7.2
   does not pass on; PRoot takes it away on real devices too, which are then taken for emulated. */
static inline bool is_emulated(void) {
  char booted[8], kernel[8];
  if (is_run_by_another_program() || !getauxval(AT_SYSINFO_EHDR)) return true;
  android_property("ro.boot.qemu", booted, sizeof booted);
  android_property("ro.kernel.qemu", kernel, sizeof kernel);
  return !strcmp(booted, "1") || !strcmp(kernel, "1");
}

#endif
