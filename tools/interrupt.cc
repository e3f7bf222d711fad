#include "tools/interrupt.h"

#include <signal.h>

#include <initializer_list>

namespace tern {
namespace {

volatile sig_atomic_t interrupted = 0;

void Mark(int) { interrupted = 1; }

}  // namespace

void CatchInterrupts() {
  struct sigaction action = {};
  action.sa_handler = &Mark;
  action.sa_flags = SA_RESETHAND | SA_RESTART;
  sigset_t signals;
  sigemptyset(&signals);
  for (int signal : {SIGINT, SIGTERM}) {
    sigaction(signal, &action, nullptr);
    sigaddset(&signals, signal);
  }
  // Whoever started this process may have blocked them.
  sigprocmask(SIG_UNBLOCK, &signals, nullptr);
}

bool Interrupted() { return interrupted != 0; }

}  // namespace tern
