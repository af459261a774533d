/* Libraries of this process, and counting in them by the emulator's plugin (deploy/board/counter.c). */
#ifndef SHUFFLEDEPLOY_LOADED_LIBRARIES_H
#define SHUFFLEDEPLOY_LOADED_LIBRARIES_H

#include <stdbool.h>
#include <stdint.h>

/* Load a library, or give the handle of when it was loaded first; NULL leaves dlerror() to say why. */
void *open_once(const char *path);

/* Where a loaded file lies: its first byte, the first byte after it. */
bool find_library(const char *name, uint64_t *low, uint64_t *high);

void begin_counting(uint64_t low, uint64_t high);
void end_counting(void);

/* Have the plugin simulate caches of these shapes, empty ones, from now on: three levels and places of
   pages, each as counter.c reads it. */
void simulate_caches(const uint64_t shapes[4]);

/* The plugin's report, whose file is removed; to be freed, NULL if there is none. */
char *take_report(const char *prefix);

#endif
