/* Clients that connect, until one of them is served: none of them can hold up the others. */
#ifndef SHUFFLEDEPLOY_GREETING_H
#define SHUFFLEDEPLOY_GREETING_H

#include <poll.h>

#include "tvm_protocol.h"

enum { MOST_CLIENTS = 64 };

/* A client.  It sends the magic number, the size of its greeting, and the greeting:
   "client:KEY -timeout=SECONDS". */
struct client {
  int socket;
  double gives_up_at; /* when an unfinished greeting is dropped */
  double timeout;     /* of the session that it asks for, in seconds; 0 for none */
  bool is_admitted;   /* greeted with the right key: waits for its session */
  size_t got;
  char bytes[2 * sizeof(int32_t) + LONGEST_GREETING + 1];
};

/* Those that wait, the one that came first at the front. */
struct clients {
  struct client all[MOST_CLIENTS];
  size_t count;
};

/* Take the connections that wait at a listening socket.  Of too many that have not greeted, the oldest
   are dropped. */
void accept_clients(struct clients *clients, int listening);

/* Whether there is room for one more, if need be by dropping one that has not greeted. */
bool has_room(const struct clients *clients);

/* Read what clients sent (events as poll told them, one a client) and drop those that are none.  Who
   greets with the key is admitted, or only the first of them; who greets with another is told so.
   A key of NULL fits nobody.  Returns whether one was admitted. */
bool hear_clients(struct clients *clients, const struct pollfd *told, const char *key,
                  bool is_for_one);

/* Remove the first admitted client and return its socket, -1 if there is none. */
int next_admitted(struct clients *clients, double *timeout);

void drop_all(struct clients *clients);

#endif
