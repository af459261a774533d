/* Messages to a tracker: the size as four bytes, then JSON. */
#include "tracker_link.h"

#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ANSWER_S = 10, CONNECT_MS = 5000, LONGEST_ANSWER = 1 << 16 };

static bool lose(struct tracker *tracker) {
  if (tracker->socket >= 0) close(tracker->socket);
  tracker->socket = -1;
  return false;
}

/* A connected socket, or -1. */
static int connect_within(const struct addrinfo *place) {
  const int made =
      socket(place->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_TCP);
  if (made < 0) return -1;
  int error = connect(made, place->ai_addr, place->ai_addrlen) ? errno : 0;
  if (error == EINPROGRESS) {
    struct pollfd wait = {made, POLLOUT, 0};
    socklen_t size = sizeof error;
    if (poll(&wait, 1, CONNECT_MS) == 1) getsockopt(made, SOL_SOCKET, SO_ERROR, &error, &size);
  }
  if (error) return close(made), -1;
  fcntl(made, F_SETFL, fcntl(made, F_GETFL) & ~O_NONBLOCK);
  limit_waiting(made, ANSWER_S);
  return made;
}

static bool send_message(struct tracker *tracker, const char *text) {
  const int32_t size = (int32_t)strlen(text);
  return (send_all(tracker->socket, &size, sizeof size) &&
          send_all(tracker->socket, text, (size_t)size)) ||
         lose(tracker);
}

/* The tracker's answer, to be freed; NULL if there is none. */
static char *receive_message(struct tracker *tracker) {
  int32_t size;
  char *text = NULL;
  if (receive_all(tracker->socket, &size, sizeof size) && size > 0 && size < LONGEST_ANSWER &&
      (text = calloc(1, (size_t)size + 1)) && receive_all(tracker->socket, text, (size_t)size))
    return text;
  free(text);
  lose(tracker);
  return NULL;
}

/* Send a message whose answer is 0, for success. */
static bool tell(struct tracker *tracker, const char *message) {
  char *answer = send_message(tracker, message) ? receive_message(tracker) : NULL;
  const bool is_success = answer && !strcmp(answer, "0");
  free(answer);
  return is_success || lose(tracker);
}

bool tracker_connect(struct tracker *tracker) {
  struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV}, *places;
  if (getaddrinfo(tracker->host, tracker->port, &hints, &places)) return false;
  for (const struct addrinfo *place = places; place && tracker->socket < 0; place = place->ai_next)
    tracker->socket = connect_within(place);
  freeaddrinfo(places);
  if (tracker->socket < 0) return false;
  int32_t magic = TRACKER_MAGIC;
  if (!send_all(tracker->socket, &magic, sizeof magic) ||
      !receive_all(tracker->socket, &magic, sizeof magic) || magic != TRACKER_MAGIC)
    return lose(tracker);
  char message[LONGEST_KEY + 100];
  snprintf(message, sizeof message, "[%d, {\"key\": \"server:%s\", \"addr\": [null, %d]}]",
           TRACKER_UPDATE, tracker->key, tracker->announced_port);
  return tell(tracker, message);
}

bool tracker_offer(struct tracker *tracker, const char *session_key) {
  char message[3 * LONGEST_KEY];
  snprintf(message, sizeof message, "[%d, \"%s\", [%d, \"%s\"], null]", TRACKER_PUT, tracker->key,
           tracker->announced_port, session_key);
  return tell(tracker, message);
}

bool tracker_ask(struct tracker *tracker, const char *session_key, bool *still_waits) {
  char message[16];
  snprintf(message, sizeof message, "[%d]", TRACKER_PENDING);
  char *answer = send_message(tracker, message) ? receive_message(tracker) : NULL;
  if (!answer) return false;
  *still_waits = strstr(answer, session_key) != NULL;
  free(answer);
  return true;
}
