/* One client's session: a child of the server with a folder of its own. */
#ifndef SHUFFLEDEPLOY_SESSION_H
#define SHUFFLEDEPLOY_SESSION_H

#include <limits.h>
#include <stdbool.h>
#include <sys/types.h>

/* A session; child is 0 while there is none. */
struct session {
  pid_t child, server;
  int socket;
  double ends_at; /* seconds_now() at its time-out; infinite without one */
  double seconds; /* as it was asked for */
  char folder[PATH_MAX];
};

/* The server's own folder, in which those of sessions lie: marked by a lock that goes with it. */
struct work {
  char folder[PATH_MAX];
  int lock;
};

/* Make the server's folder in another one, and remove those whose servers are dead. */
bool open_work(struct work *work, const char *parent);
void close_work(struct work *work);

/* Answer an admitted client and fork a child for it; `seconds` is 0 without a time-out.  Takes the
   socket.  Returns true in the child, which lets go of what is the server's and serves. */
bool begin_session(struct session *session, const struct work *work, int socket, double seconds,
                   const char *server_key);

/* Serve the client, in the child, on a core or on any. */
_Noreturn void serve_session(const struct session *session, int core);

/* Clean up if the child has ended. */
void reap_session(struct session *session);

/* Kill the child; tell its client why if it was the time-out. */
void end_session(struct session *session, bool is_late);

#endif
