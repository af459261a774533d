/* A server of TVM's RPC for devices without Python.
 *
 * One process waits: for clients, for the tracker, for the end of the session.  Each session is a
 * child of it, so that a library that crashes takes one session with it.  There is one session at a
 * time, as with TVM's own server: two would disturb each other's times.
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "device_functions.h"
#include "greeting.h"
#include "processor.h"
#include "server_options.h"
#include "session.h"
#include "tracker_link.h"

enum { ASK_TRACKER_S = 2, UNUSED_OFFER_S = 6 };

struct server {
  struct options options;
  struct device device;
  struct work work;
  struct clients clients;
  struct session session;
  struct tracker tracker;
  int listening;
  bool is_offered;     /* the tracker has this server's key to give away */
  double ask_at;       /* when the tracker is next to be asked, or to be connected to */
  double last_waiting; /* when the offer was last known to wait */
  char session_key[LONGEST_KEY + 24];
};

static volatile sig_atomic_t is_ending;

static void on_end(int number) { (void)number, is_ending = 1; }
static void on_child(int number) { (void)number; }

/* Signals come while the server waits, and never between: `waiting` is the mask of then. */
static void take_signals(sigset_t *waiting) {
  sigset_t blocked;
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGCHLD), sigaddset(&blocked, SIGTERM);
  sigaddset(&blocked, SIGINT), sigaddset(&blocked, SIGHUP);
  sigprocmask(SIG_BLOCK, &blocked, waiting);
  sigdelset(waiting, SIGCHLD), sigdelset(waiting, SIGTERM);
  sigdelset(waiting, SIGINT), sigdelset(waiting, SIGHUP);
  signal(SIGPIPE, SIG_IGN);
  signal(SIGCHLD, on_child), signal(SIGTERM, on_end);
  signal(SIGINT, on_end), signal(SIGHUP, on_end);
}

/* A listening socket, whose port is written to the options; -1 with errno set. */
static int listen_on(struct options *options) {
  struct sockaddr_in place = {.sin_family = AF_INET, .sin_port = htons((uint16_t)options->port),
                              .sin_addr = options->address};
  socklen_t size = sizeof place;
  const int made = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), yes = 1;
  if (made < 0) return -1;
  setsockopt(made, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  /* Accepted sockets inherit it: answers are small, and none is to wait for the next. */
  setsockopt(made, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
  if (bind(made, (struct sockaddr *)&place, size) || listen(made, SOMAXCONN) ||
      getsockname(made, (struct sockaddr *)&place, &size))
    return close(made), -1;
  options->port = ntohs(place.sin_port);
  return made;
}

/* ---- the tracker ---- */

/* Offer this server under a key that nobody can guess. */
static bool offer(struct server *server) {
  uint64_t random = 0;
  if (getrandom(&random, sizeof random, 0) != sizeof random) return false;
  snprintf(server->session_key, sizeof server->session_key, "%s:%016" PRIx64, server->options.key,
           random);
  server->is_offered = tracker_offer(&server->tracker, server->session_key);
  server->last_waiting = seconds_now();
  return server->is_offered;
}

/* See to it that the tracker offers this server while it is free.  An offer that a client was given
   and did not use for some seconds is renewed. */
static void keep_offered(struct server *server) {
  const double now = seconds_now();
  if (!server->options.tracker_host || server->session.child) return;
  if (server->is_offered && now >= server->ask_at) {
    bool still_waits = false;
    server->is_offered = tracker_ask(&server->tracker, server->session_key, &still_waits);
    server->ask_at = now + ASK_TRACKER_S;
    if (still_waits) server->last_waiting = now;
    if (server->is_offered && now - server->last_waiting > UNUSED_OFFER_S) offer(server);
  } else if (!server->is_offered && (server->tracker.socket >= 0 || now >= server->ask_at)) {
    server->ask_at = now + ASK_TRACKER_S;
    if (server->tracker.socket >= 0 || tracker_connect(&server->tracker)) offer(server);
  }
}

/* ---- sessions ---- */

/* In a session: let go of what is the server's. */
static void let_go(struct server *server) {
  close(server->listening);
  drop_all(&server->clients);
  if (server->tracker.socket >= 0) close(server->tracker.socket);
  close(server->work.lock);
}

/* Serve the client that waits longest, if there is one and no other is served. */
static void serve_next(struct server *server) {
  double seconds = 0;
  const double limit = server->options.session_seconds;
  if (server->session.child) return;
  const int client = next_admitted(&server->clients, &seconds);
  if (client < 0) return;
  if (!(seconds > 0 && seconds < 1e9)) seconds = 0;
  if (limit > 0 && (seconds <= 0 || seconds > limit)) seconds = limit;
  if (begin_session(&server->session, &server->work, client, seconds, server->options.key)) {
    let_go(server);
    serve_session(&server->session, server->options.core);
  }
}

/* ---- waiting ---- */

/* How long there is nothing to do. */
static struct timespec time_to_wait(const struct server *server) {
  double until = server->session.child ? server->session.ends_at : INFINITY;
  for (size_t place = 0; place < server->clients.count; ++place)
    if (!server->clients.all[place].is_admitted)
      until = fmin(until, server->clients.all[place].gives_up_at);
  if (server->options.tracker_host && !server->session.child) until = fmin(until, server->ask_at);
  const double left = fmin(fmax(until - seconds_now(), 0), 3600);
  return (struct timespec){(time_t)left, (long)(1e9 * (left - floor(left)))};
}

/* Whether who started this server is gone: its end of standard input is closed then.  An input that
   cannot be read tells nothing more, either. */
static bool is_abandoned(void) {
  char bytes[256];
  const ssize_t got = read(STDIN_FILENO, bytes, sizeof bytes);
  return got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR);
}

/* Wait for something to happen, and do what is to be done then.  Returns false at the end. */
static bool run_once(struct server *server, const sigset_t *waiting) {
  struct pollfd asked[MOST_CLIENTS + 2];
  const size_t count = server->clients.count;
  for (size_t place = 0; place < count; ++place)
    asked[place] = (struct pollfd){server->clients.all[place].socket, POLLIN, 0};
  struct pollfd *door = &asked[count], *starter = &asked[count + 1];
  *door = (struct pollfd){has_room(&server->clients) ? server->listening : -1, POLLIN, 0};
  *starter = (struct pollfd){server->options.watches ? STDIN_FILENO : -1, POLLIN, 0};
  const struct timespec longest = time_to_wait(server);
  const int told = ppoll(asked, count + 2, &longest, waiting);
  const bool is_interrupted = told < 0 && errno == EINTR;
  if (is_ending || (told < 0 && !is_interrupted)) return false;
  reap_session(&server->session);
  if (server->session.child && seconds_now() >= server->session.ends_at)
    end_session(&server->session, true);
  if (is_interrupted) memset(asked, 0, sizeof asked);
  if (starter->revents && is_abandoned()) return false;
  const bool is_tracked = server->options.tracker_host;
  const char *offered = server->is_offered ? server->session_key : NULL;
  if (hear_clients(&server->clients, asked, is_tracked ? offered : server->options.key, is_tracked) &&
      is_tracked)
    server->is_offered = false;
  if (door->revents) accept_clients(&server->clients, server->listening);
  serve_next(server);
  keep_offered(server);
  return true;
}

/* ---- beginning and end ---- */

static int complain_of(const char *what) {
  perror(what);
  return EXIT_FAILURE;
}

/* Where a standard stream is closed, let it be /dev/null: else a socket would take its number. */
static void open_missing_streams(void) {
  int file;
  do file = open("/dev/null", O_RDWR);
  while (file >= 0 && file <= STDERR_FILENO);
  if (file >= 0) close(file);
}

/* Find out what the device is, make its functions callable, listen. */
static int begin(struct server *server) {
  const struct options *options = &server->options;
  server->device.is_emulated = options->is_emulated || is_emulated();
  server->device.core = options->core;
  server->device.counts = options->counts;
  device_name(server->device.is_emulated, server->device.name, sizeof server->device.name);
  /* Networks run in the thread that calls them, on the core to which the session is pinned. */
  setenv("TVM_NUM_THREADS", "1", false);
  setenv("TVM_BIND_THREADS", "0", false);
  if (!register_functions(&server->device)) return EXIT_FAILURE;
  if (!open_work(&server->work, options->work)) return complain_of(options->work);
  if ((server->listening = listen_on(&server->options)) < 0) {
    close_work(&server->work);
    return complain_of("cannot listen");
  }
  server->tracker = (struct tracker){
      options->tracker_host, options->tracker_port, options->key,
      options->announced_port ? options->announced_port : options->port, -1};
  keep_offered(server);
  if (options->tracker_host && !server->is_offered) {
    close_work(&server->work);
    fprintf(stderr, "no tracker answers at %s:%s\n", options->tracker_host, options->tracker_port);
    return EXIT_FAILURE;
  }
  return EXIT_SUCCESS;
}

int main(int count, char **words) {
  static struct server server = {.session.socket = -1};
  sigset_t waiting;
  open_missing_streams();
  server.options = read_options(count, words);
  take_signals(&waiting);
  const int status = begin(&server);
  if (status) return status;
  printf("ready %d\n", server.options.port);
  fflush(stdout);
  while (run_once(&server, &waiting)) continue;
  end_session(&server.session, false);
  close_work(&server.work);
  /* TVM's runtime needs no tidying up, and under an emulator that takes a while. */
  fflush(stdout);
  _exit(EXIT_SUCCESS);
}
