/* What a device tells of itself, as JSON. */
#ifndef SHUFFLEDEPLOY_DEVICE_DESCRIPTION_H
#define SHUFFLEDEPLOY_DEVICE_DESCRIPTION_H

#include <stdbool.h>

/* What the server knows of its device.  Lives as long as the server. */
struct device {
  bool is_emulated;
  int core;           /* to which sessions are pinned, or ANY_CORE */
  const char *counts; /* prefix of the counting plugin's files; empty without the plugin */
  char name[96];      /* as the device calls itself; maybe empty */
};

/* What the device is: {"server", "tvm_version", "architecture", "features", "part", "emulated",
   "counts", "pid", "core", "name"}; core and name may be null.  To be freed; NULL if there is no
   memory. */
char *describe_device(const struct device *device);

/* How the processor runs now: {"core", "present_khz", "highest_khz", "millidegrees"}; null for what
   the device does not tell.  To be freed. */
char *describe_processor(void);

#endif
