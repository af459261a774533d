/* The numbers of TVM 0.27's RPC: tvm/rpc/base.py, tvm/rpc/server.py, tvm/rpc/tracker.py. */
#ifndef SHUFFLEDEPLOY_TVM_PROTOCOL_H
#define SHUFFLEDEPLOY_TVM_PROTOCOL_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <time.h>

enum {
  RPC_MAGIC = 0xff271,
  RPC_MISMATCH = RPC_MAGIC + 2,
  TRACKER_MAGIC = 0x2f271,
  TRACKER_PUT = 3,
  TRACKER_UPDATE = 5,
  TRACKER_PENDING = 7,
  LONGEST_KEY = 200,
  LONGEST_GREETING = 512, /* "client:", a key with its random part, options */
};

/* Seconds of a clock that nobody sets. */
static inline double seconds_now(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* How long one call of send or recv on a socket may wait. */
static inline void limit_waiting(int socket, int seconds) {
  const struct timeval limit = {seconds, 0};
  setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  setsockopt(socket, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
}

static inline bool send_all(int socket, const void *bytes, size_t size) {
  for (size_t sent = 0; sent < size;) {
    const ssize_t more = send(socket, (const char *)bytes + sent, size - sent, MSG_NOSIGNAL);
    if (more < 0 && errno == EINTR) continue;
    if (more <= 0) return false;
    sent += (size_t)more;
  }
  return true;
}

static inline bool receive_all(int socket, void *bytes, size_t size) {
  for (size_t got = 0; got < size;) {
    const ssize_t more = recv(socket, (char *)bytes + got, size - got, 0);
    if (more < 0 && errno == EINTR) continue;
    if (more <= 0) return false;
    got += (size_t)more;
  }
  return true;
}

#endif
