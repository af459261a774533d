#include "greeting.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { GREETING_S = 5, HEADER = 2 * sizeof(int32_t) };

/* Take a client off the list; its socket stays open. */
static void take_off(struct clients *clients, size_t place) {
  --clients->count;
  memmove(&clients->all[place], &clients->all[place + 1],
          (clients->count - place) * sizeof *clients->all);
}

static void drop(struct clients *clients, size_t place) {
  close(clients->all[place].socket);
  take_off(clients, place);
}

/* The place of the oldest that has not greeted, or count. */
static size_t oldest_unfinished(const struct clients *clients) {
  size_t place = 0;
  while (place < clients->count && clients->all[place].is_admitted) ++place;
  return place;
}

bool has_room(const struct clients *clients) {
  return clients->count < MOST_CLIENTS || oldest_unfinished(clients) < clients->count;
}

void accept_clients(struct clients *clients, int listening) {
  for (int most = MOST_CLIENTS; most && has_room(clients); --most) {
    const int socket = accept4(listening, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (socket < 0) return;
    if (clients->count == MOST_CLIENTS) drop(clients, oldest_unfinished(clients));
    struct client *client = &clients->all[clients->count++];
    *client = (struct client){.socket = socket, .gives_up_at = seconds_now() + GREETING_S};
  }
}

/* How many bytes a client still owes, given what it sent; 0 when its greeting is whole, -1 if it is
   no client. */
static long owed(const struct client *client) {
  int32_t numbers[2] = {RPC_MAGIC, 0};
  memcpy(numbers, client->bytes, client->got < HEADER ? client->got / 4 * 4 : HEADER);
  if (numbers[0] != RPC_MAGIC) return -1;
  if (client->got < HEADER) return (long)(HEADER - client->got);
  if (numbers[1] <= 0 || numbers[1] > LONGEST_GREETING) return -1;
  return (long)HEADER + numbers[1] - (long)client->got;
}

/* Read no more than the greeting: what follows is the session's.  Returns false if it has ended. */
static bool read_greeting(struct client *client) {
  for (long wanted = owed(client); wanted; wanted = owed(client)) {
    if (wanted < 0) return false;
    const ssize_t more = recv(client->socket, client->bytes + client->got, (size_t)wanted, 0);
    if (more < 0) return errno == EAGAIN || errno == EINTR;
    if (!more) return false;
    client->got += (size_t)more;
  }
  return true;
}

/* Admit a client whose greeting is whole, or tell it that its key is another server's. */
static bool admit(struct client *client, const char *key) {
  char *rest, *word = strtok_r(client->bytes + HEADER, " ", &rest);
  const size_t prefix = strlen("client:");
  if (!key || !word || strncmp(word, "client:", prefix) || strcmp(word + prefix, key)) {
    const int32_t answer = RPC_MISMATCH;
    send_all(client->socket, &answer, sizeof answer);
    return false;
  }
  while ((word = strtok_r(NULL, " ", &rest)))
    if (!strncmp(word, "-timeout=", strlen("-timeout=")))
      client->timeout = strtod(word + strlen("-timeout="), NULL);
  return client->is_admitted = true;
}

/* Whether a client that waits for its session is still there and has kept to the protocol. */
static bool is_waiting(const struct client *client) {
  char byte;
  return recv(client->socket, &byte, 1, MSG_PEEK) < 0 && errno == EAGAIN;
}

bool hear_clients(struct clients *clients, const struct pollfd *told, const char *key,
                  bool is_for_one) {
  const size_t asked = clients->count;
  bool was_admitted = false;
  for (size_t from = 0, place = 0; from < asked; ++from) {
    struct client *client = &clients->all[place];
    bool stays = client->is_admitted || seconds_now() < client->gives_up_at;
    if (told[from].revents && client->is_admitted) stays = is_waiting(client);
    if (told[from].revents && !client->is_admitted) {
      stays = read_greeting(client);
      if (stays && !owed(client)) {
        stays = admit(client, was_admitted && is_for_one ? NULL : key);
        was_admitted |= stays;
      }
    }
    if (stays)
      ++place;
    else
      drop(clients, place);
  }
  return was_admitted;
}

int next_admitted(struct clients *clients, double *timeout) {
  for (size_t place = 0; place < clients->count; ++place) {
    if (!clients->all[place].is_admitted) continue;
    const int socket = clients->all[place].socket;
    *timeout = clients->all[place].timeout;
    take_off(clients, place);
    return socket;
  }
  return -1;
}

void drop_all(struct clients *clients) {
  while (clients->count) drop(clients, clients->count - 1);
}
