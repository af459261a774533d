/* A server's connection with a TVM tracker. */
#ifndef SHUFFLEDEPLOY_TRACKER_LINK_H
#define SHUFFLEDEPLOY_TRACKER_LINK_H

#include "tvm_protocol.h"

/* The tracker, and what it is told; socket is -1 while there is no connection. */
struct tracker {
  const char *host, *port, *key;
  int announced_port;
  int socket;
};

/* Connect and introduce this server.  Each function returns false when the tracker is lost: the
   socket is closed then. */
bool tracker_connect(struct tracker *tracker);

/* Offer the server to the tracker's clients: who comes with this key is served. */
bool tracker_offer(struct tracker *tracker, const char *session_key);

/* Ask whether the offer still waits, or a client was given it. */
bool tracker_ask(struct tracker *tracker, const char *session_key, bool *still_waits);

#endif
