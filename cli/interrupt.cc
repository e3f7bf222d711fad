#include "cli/interrupt.h"

#include <signal.h>

#include <cstdlib>
#include <iostream>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "cli/command.h"
#include "util/server_main.h"

namespace tern {
namespace {

// Waits for signals, in a thread that ends with the process.
class SignalWatch {
 public:
  static SignalWatch* Get() {
    // Never deleted: its thread uses it.
    static SignalWatch* const watch = [] {
      auto* w = new SignalWatch;
      std::thread([w] { w->Run(); }).detach();
      return w;
    }();
    return watch;
  }

  // Null: no call is in progress.
  void SetCall(std::shared_ptr<Cancellation> call) ABSL_LOCKS_EXCLUDED(mu_) {
    absl::MutexLock lock(&mu_);
    call_ = std::move(call);
  }

 private:
  void Run() ABSL_LOCKS_EXCLUDED(mu_) {
    for (;;) {
      const int signal = WaitForShutdownSignal();
      BlockShutdownSignals();  // the next one comes here too
      std::shared_ptr<Cancellation> call;
      {
        absl::MutexLock lock(&mu_);
        call = call_;
      }
      if (signal != SIGINT || call == nullptr || call->cancelled()) {
        std::cerr << std::endl;
        std::_Exit(kExitInterrupted);
      }
      call->Cancel();
    }
  }

  absl::Mutex mu_;
  std::shared_ptr<Cancellation> call_ ABSL_GUARDED_BY(mu_);
};

}  // namespace

InterruptibleCall::InterruptibleCall()
    : cancellation_(std::make_shared<Cancellation>()) {
  SignalWatch::Get()->SetCall(cancellation_);
}

InterruptibleCall::~InterruptibleCall() {
  SignalWatch::Get()->SetCall(nullptr);
}

}  // namespace tern
