#ifndef CLI_INTERRUPT_H_
#define CLI_INTERRUPT_H_

#include <memory>

#include "client/cancellation.h"

namespace tern {

// Ctrl-C for a program that makes one call after the other: it ends the call in
// progress, and the program (with kExitInterrupted) where there is none, or
// when the call does not end. SIGTERM always ends the program.
//
// While it lives, the call in progress is the one given its cancellation().
// One at a time, of one thread.
// REQUIRES: BlockShutdownSignals() in main().
class InterruptibleCall {
 public:
  InterruptibleCall();
  ~InterruptibleCall();
  InterruptibleCall(const InterruptibleCall&) = delete;
  InterruptibleCall& operator=(const InterruptibleCall&) = delete;

  Cancellation* cancellation() { return cancellation_.get(); }

 private:
  const std::shared_ptr<Cancellation> cancellation_;
};

}  // namespace tern

#endif  // CLI_INTERRUPT_H_
