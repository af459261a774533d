#include "server_options.h"

#include <arpa/inet.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "processor.h"
#include "tvm_protocol.h"

static const char USAGE[] =
    "usage: tvm_rpc_server [options]\n"
    "Serves TVM's RPC on 127.0.0.1, one session at a time, and prints 'ready PORT'.\n"
    "  --port N                listen here; 0 takes a free port (default)\n"
    "  --tracker HOST:PORT     register at this tracker\n"
    "  --key KEY               ... under this key\n"
    "  --announce-port N       ... with this port in place of the server's own\n"
    "  --work DIR              keep the sessions' files here (default: the present folder)\n"
    "  --watch                 end when standard input closes\n"
    "  --emulated              tell clients that this device is emulated\n"
    "  --core big|little|N|any pin sessions to a core (default: any)\n"
    "  --session-seconds S     end sessions that take longer\n"
    "  --counts PREFIX         where the emulator's plugin writes its counts\n"
    "  --listen-on ADDRESS     another IPv4 address; needs --allow-remote, for who reaches the\n"
    "  --allow-remote          server can run any code on this device\n";

enum option_key {
  PORT = 256, TRACKER, KEY, ANNOUNCE_PORT, WORK, WATCH, EMULATED, CORE, SESSION_SECONDS, COUNTS,
  LISTEN_ON, ALLOW_REMOTE, HELP
};

static const struct option OPTIONS[] = {
    {"port", required_argument, NULL, PORT},
    {"tracker", required_argument, NULL, TRACKER},
    {"key", required_argument, NULL, KEY},
    {"announce-port", required_argument, NULL, ANNOUNCE_PORT},
    {"work", required_argument, NULL, WORK},
    {"watch", no_argument, NULL, WATCH},
    {"emulated", no_argument, NULL, EMULATED},
    {"core", required_argument, NULL, CORE},
    {"session-seconds", required_argument, NULL, SESSION_SECONDS},
    {"counts", required_argument, NULL, COUNTS},
    {"listen-on", required_argument, NULL, LISTEN_ON},
    {"allow-remote", no_argument, NULL, ALLOW_REMOTE},
    {"help", no_argument, NULL, HELP},
    {0},
};

__attribute__((format(printf, 1, 2))) static _Noreturn void refuse(const char *format, ...) {
  va_list values;
  va_start(values, format);
  vfprintf(stderr, format, values);
  va_end(values);
  fputc('\n', stderr);
  exit(2);
}

static int read_port(const char *text, int lowest) {
  char *end;
  const long port = strtol(text, &end, 10);
  if (end == text || *end || port < lowest || port > 65535) refuse("'%s' is no port", text);
  return (int)port;
}

static double read_seconds(const char *text) {
  char *end;
  const double seconds = strtod(text, &end);
  if (end == text || *end || !(seconds > 0 && seconds < 1e9)) refuse("'%s' is no time", text);
  return seconds;
}

/* What stands in JSON as it is, and in a greeting between two spaces. */
static const char *read_key(const char *text) {
  for (const char *letter = text; *letter; ++letter)
    if (*letter <= ' ' || *letter > '~' || *letter == '"' || *letter == '\\')
      refuse("a key is of letters, digits and signs other than quotes, backslashes and spaces");
  if (strlen(text) > LONGEST_KEY) refuse("a key has at most %d letters", LONGEST_KEY);
  return text;
}

static void read_tracker(struct options *options, char *text) {
  char *colon = strrchr(text, ':');
  if (!colon || colon == text) refuse("'%s' is no tracker: give HOST:PORT", text);
  *colon = 0;
  read_port(colon + 1, 1);
  options->tracker_host = text, options->tracker_port = colon + 1;
}

static void read_option(struct options *options, int which, bool *allows_remote) {
  switch (which) {
    case PORT: options->port = read_port(optarg, 0); break;
    case TRACKER: read_tracker(options, optarg); break;
    case KEY: options->key = read_key(optarg); break;
    case ANNOUNCE_PORT: options->announced_port = read_port(optarg, 1); break;
    case WORK: options->work = optarg; break;
    case WATCH: options->watches = true; break;
    case EMULATED: options->is_emulated = true; break;
    case CORE:
      options->core = choose_core(optarg);
      if (options->core == NO_SUCH_CORE)
        refuse("'%s' is no core that may be used here: give big, little, any or a number", optarg);
      break;
    case SESSION_SECONDS: options->session_seconds = read_seconds(optarg); break;
    case COUNTS: options->counts = optarg; break;
    case LISTEN_ON:
      if (inet_pton(AF_INET, optarg, &options->address) != 1)
        refuse("'%s' is no IPv4 address", optarg);
      break;
    case ALLOW_REMOTE: *allows_remote = true; break;
    case HELP: fputs(USAGE, stdout); exit(0);
    default: exit(2);
  }
}

struct options read_options(int count, char **words) {
  struct options options = {
      .address.s_addr = htonl(INADDR_LOOPBACK), .core = ANY_CORE, .key = "", .work = ".", .counts = ""};
  bool allows_remote = false;
  for (int which; (which = getopt_long(count, words, "", OPTIONS, NULL)) != -1;)
    read_option(&options, which, &allows_remote);
  if (optind < count) refuse("'%s' is no option; see --help", words[optind]);
  if (options.tracker_host && !*options.key) refuse("--tracker needs a --key");
  if (ntohl(options.address.s_addr) >> 24 != IN_LOOPBACKNET && !allows_remote)
    refuse("who reaches the server can run any code on this device: --listen-on an address that is"
           " not loopback needs --allow-remote, too");
  return options;
}
