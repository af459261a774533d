/* What a server is told when it is started. */
#ifndef SHUFFLEDEPLOY_SERVER_OPTIONS_H
#define SHUFFLEDEPLOY_SERVER_OPTIONS_H

#include <netinet/in.h>
#include <stdbool.h>

struct options {
  struct in_addr address;
  int port, announced_port, core;
  const char *tracker_host, *tracker_port; /* NULL without a tracker */
  const char *key, *work, *counts;
  bool watches, is_emulated;
  double session_seconds; /* 0 for no limit */
};

/* Read the command line.  What is wrong with it is said, and ends the program with status 2. */
struct options read_options(int count, char **words);

#endif
