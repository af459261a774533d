/* What /proc/cpuinfo says of a core.  Shared by what runs on devices; needs -D_GNU_SOURCE. */
#ifndef SHUFFLEDEPLOY_CPUINFO_H
#define SHUFFLEDEPLOY_CPUINFO_H

#include "processor.h"

enum { LONGEST_LINE = 8192 };

/* The spellings of /proc/cpuinfo on ARM and on x86. */
static inline bool is_features(const char *field) {
  return !strcmp(field, "Features") || !strcmp(field, "flags");
}

/* Part a line "field<tab>: value" in place; false if it is none. */
static inline bool part_line(char *line, char **value) {
  char *colon = strchr(line, ':');
  if (!colon) return false;
  *colon = 0;
  for (char *end = colon; end > line && isspace((unsigned char)end[-1]);) *--end = 0;
  *value = colon + 1 + strspn(colon + 1, " \t");
  (*value)[strcspn(*value, "\n")] = 0;
  return true;
}

/* Read the features of the first core, and the part number of the one asked for or of the first. */
static inline void read_cpuinfo(int core, char *features, char *part, size_t part_size) {
  FILE *file = fopen("/proc/cpuinfo", "re");
  static char line[LONGEST_LINE];
  int here = ANY_CORE;
  *features = *part = 0;
  while (file && fgets(line, sizeof line, file)) {
    char *value;
    if (!part_line(line, &value)) continue;
    if (!strcmp(line, "processor")) here = atoi(value);
    if (is_features(line) && !*features) strcpy(features, value);
    if (!strcmp(line, "CPU part") && (!*part || here == core)) snprintf(part, part_size, "%s", value);
  }
  if (file) fclose(file);
}

#endif
