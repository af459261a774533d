#include "session.h"

#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <math.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <sys/wait.h>
#include <unistd.h>

#include "device_functions.h"
#include "processor.h"
#include "tvm_protocol.h"

#define PREFIX "shuffledeploy-served-"
enum { TELL_S = 5, MOST_OPEN = 16, MOST_UNREAD = 1 << 12 };

/* ---- folders ---- */

static int remove_entry(const char *path, const struct stat *status, int kind, struct FTW *place) {
  (void)status, (void)kind, (void)place;
  return remove(path), 0;
}

static void remove_tree(const char *folder) {
  nftw(folder, remove_entry, MOST_OPEN, FTW_DEPTH | FTW_PHYS);
}

/* The lock of a server's folder, or -1 if a living server has it. */
static int lock_folder(const char *folder) {
  const int lock = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
  if (lock >= 0 && !flock(lock, LOCK_EX | LOCK_NB)) return lock;
  if (lock >= 0) close(lock);
  return -1;
}

static void remove_dead_servers(const char *parent) {
  DIR *entries = opendir(parent);
  if (!entries) return;
  for (const struct dirent *entry; (entry = readdir(entries));) {
    char folder[PATH_MAX];
    const int length = snprintf(folder, sizeof folder, "%s/%s", parent, entry->d_name);
    if (strncmp(entry->d_name, PREFIX, strlen(PREFIX)) || length >= PATH_MAX) continue;
    const int lock = lock_folder(folder);
    if (lock < 0) continue;
    remove_tree(folder);
    close(lock);
  }
  closedir(entries);
}

static bool make_locked_folder(struct work *work, const char *parent) {
  const int length = snprintf(work->folder, sizeof work->folder, "%s/" PREFIX "XXXXXX", parent);
  if (length >= PATH_MAX - 64 || !mkdtemp(work->folder)) return false;
  work->lock = lock_folder(work->folder);
  return work->lock >= 0;
}

bool open_work(struct work *work, const char *parent) {
  char whole[PATH_MAX];
  if (!realpath(parent, whole)) return false;
  /* One server at a time: another would take a folder for dead that is not locked yet. */
  const int turn = open(whole, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (turn < 0 || flock(turn, LOCK_EX)) return false;
  remove_dead_servers(whole);
  const bool is_made = make_locked_folder(work, whole);
  close(turn);
  return is_made;
}

void close_work(struct work *work) {
  remove_tree(work->folder);
  close(work->lock);
}

/* ---- the child ---- */

/* A session ends with its server, however that ends. */
static void end_with(pid_t server) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != server) _exit(1);
}

/* Memory that a session asks for beyond what the device has is refused: garbage taken for a size
   would else be filled with zeros until the kernel ends some other program. */
static void limit_memory(void) {
  struct sysinfo has;
  if (sysinfo(&has)) return;
  const rlim_t all = ((rlim_t)has.totalram + has.totalswap) * has.mem_unit;
  setrlimit(RLIMIT_AS, &(struct rlimit){all, all});
}

static void restore_signals(void) {
  sigset_t none;
  signal(SIGTERM, SIG_DFL), signal(SIGINT, SIG_DFL), signal(SIGHUP, SIG_DFL);
  signal(SIGCHLD, SIG_DFL);
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
}

static void read_nothing(void) {
  const int nothing = open("/dev/null", O_RDONLY | O_CLOEXEC);
  if (nothing < 0) return;
  dup2(nothing, STDIN_FILENO);
  close(nothing);
}

void serve_session(const struct session *session, int core) {
  end_with(session->server);
  restore_signals();
  read_nothing();
  limit_memory();
  if (chdir(session->folder)) _exit(1);
  if (core >= 0 && !pin_to_core(core)) fprintf(stderr, "cannot pin to core %d\n", core);
  const bool is_ended_well = serve_client(session->socket);
  fflush(stdout);
  _exit(!is_ended_well);
}

/* ---- the server's side ---- */

static bool answer(int socket, const char *server_key) {
  char text[LONGEST_KEY + 16];
  const int32_t size = snprintf(text, sizeof text, "server:%s", server_key), accepted = RPC_MAGIC;
  return send_all(socket, &accepted, sizeof accepted) && send_all(socket, &size, sizeof size) &&
         send_all(socket, text, (size_t)size);
}

/* A client whose cable was pulled says no more: after a minute of silence its session ends. */
static void notice_lost_client(int socket) {
  const int yes = 1, idle = 30, interval = 10, probes = 3;
  setsockopt(socket, SOL_SOCKET, SO_KEEPALIVE, &yes, sizeof yes);
  setsockopt(socket, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
  setsockopt(socket, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof interval);
  setsockopt(socket, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof probes);
}

static void forget(struct session *session) {
  if (session->socket >= 0) close(session->socket);
  remove_tree(session->folder);
  *session = (struct session){.socket = -1};
}

bool begin_session(struct session *session, const struct work *work, int socket, double seconds,
                   const char *server_key) {
  *session = (struct session){
      .server = getpid(), .socket = socket, .seconds = seconds, .ends_at = INFINITY};
  if (seconds > 0) session->ends_at = seconds_now() + seconds;
  snprintf(session->folder, sizeof session->folder, "%.*s/session-XXXXXX", PATH_MAX - 32,
           work->folder);
  fcntl(socket, F_SETFL, fcntl(socket, F_GETFL) & ~O_NONBLOCK);
  notice_lost_client(socket);
  if (!mkdtemp(session->folder) || !answer(socket, server_key)) return forget(session), false;
  fflush(NULL);
  session->child = fork();
  if (session->child < 0) perror("cannot begin a session"), forget(session);
  return session->child == 0 && session->server != 0;
}

void reap_session(struct session *session) {
  int status;
  if (session->child <= 0 || waitpid(session->child, &status, WNOHANG) != session->child) return;
  if (WIFSIGNALED(status)) fprintf(stderr, "session lost: signal %d\n", WTERMSIG(status));
  forget(session);
}

/* Read what the client sent and nobody will answer: a close would else take back what it was told. */
static void read_the_rest(int socket) {
  char bytes[4096];
  shutdown(socket, SHUT_WR);
  for (int most = MOST_UNREAD; most && recv(socket, bytes, sizeof bytes, MSG_DONTWAIT) > 0;) --most;
}

void end_session(struct session *session, bool is_late) {
  if (session->child <= 0) return;
  kill(session->child, SIGKILL);
  while (waitpid(session->child, NULL, 0) < 0 && errno == EINTR) continue;
  if (is_late) {
    char text[160];
    snprintf(text, sizeof text,
             "RPCSessionTimeoutError: the session took longer than its %g s and was ended",
             session->seconds);
    limit_waiting(session->socket, TELL_S);
    tell_client(session->socket, text);
    read_the_rest(session->socket);
  }
  forget(session);
}
