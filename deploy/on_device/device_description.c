#include "device_description.h"

#include "cpuinfo.h"

#ifdef __aarch64__
#define ARCHITECTURE "aarch64"
#else
#define ARCHITECTURE "x86_64"
#endif

/* Write a string; what JSON or a terminal would not take as it stands becomes a question mark. */
static void write_text(FILE *out, const char *text) {
  fputc('"', out);
  for (; *text; ++text) {
    const bool is_plain = *text >= ' ' && *text <= '~' && *text != '"' && *text != '\\';
    fputc(is_plain ? *text : '?', out);
  }
  fputc('"', out);
}

static void write_words(FILE *out, char *text) {
  char *rest, *word = strtok_r(text, " ", &rest);
  fputc('[', out);
  for (const char *comma = ""; word; comma = ", ", word = strtok_r(NULL, " ", &rest)) {
    fputs(comma, out);
    write_text(out, word);
  }
  fputc(']', out);
}

static void write_number(FILE *out, const char *name, long number) {
  if (number < 0)
    fprintf(out, "\"%s\": null", name);
  else
    fprintf(out, "\"%s\": %ld", name, number);
}

char *describe_device(const struct device *device) {
  static char features[LONGEST_LINE];
  char part[16], *text = NULL;
  size_t size;
  FILE *out = open_memstream(&text, &size);
  if (!out) return NULL;
  read_cpuinfo(device->core, features, part, sizeof part);
  fputs("{\"server\": \"native\", \"tvm_version\": \"" TVM_VERSION "\", ", out);
  fputs("\"architecture\": \"" ARCHITECTURE "\", \"features\": ", out);
  write_words(out, features);
  fputs(", \"part\": ", out);
  write_text(out, part);
  fprintf(out, ", \"emulated\": %s, \"counts\": %s, ", device->is_emulated ? "true" : "false",
          *device->counts ? "true" : "false");
  write_number(out, "pid", getpid());
  fputs(", ", out);
  write_number(out, "core", device->core);
  fputs(", \"name\": ", out);
  if (*device->name)
    write_text(out, device->name);
  else
    fputs("null", out);
  fputs("}", out);
  return fclose(out) ? NULL : text;
}

char *describe_processor(void) {
  const int core = sched_getcpu();
  char *text = NULL;
  size_t size;
  FILE *out = open_memstream(&text, &size);
  if (!out) return NULL;
  fputc('{', out);
  write_number(out, "core", core);
  fputs(", ", out);
  write_number(out, "present_khz", core < 0 ? UNKNOWN : present_clock(core));
  fputs(", ", out);
  write_number(out, "highest_khz", core < 0 ? UNKNOWN : highest_clock(core));
  fputs(", ", out);
  write_number(out, "millidegrees", temperature());
  fputc('}', out);
  return fclose(out) ? NULL : text;
}
