#ifndef TESTS_TESTING_FAULT_PROXY_H_
#define TESTS_TESTING_FAULT_PROXY_H_

#include <cstdint>
#include <deque>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "grpcpp/channel.h"
#include "grpcpp/generic/async_generic_service.h"
#include "grpcpp/server.h"
#include "grpcpp/support/byte_buffer.h"
#include "util/credentials.h"

namespace tern {

// A bad network in front of one gRPC server on loopback: carries every call to
// it and back without knowing a type, and on command loses, holds back,
// repeats or damages what it carries. Plaintext; metadata are not carried, the
// details of a status are. Thread-safe.
class FaultProxy {
 public:
  // Of what is carried: to the server, or from it.
  enum class Way { kThere, kBack };

  enum class Kind {
    kDuplicate,    // the message comes twice
    kCorrupt,      // a bit of it is another one
    kSwallow,      // it does not come; what follows does
    kRepeatCall,   // a call of one request is made twice, the second time for
                   // nobody, when its request comes
    kBreakStream,  // the call ends here, UNAVAILABLE to both sides
  };

  // What happens, once, to the next message of a method.
  struct MessageFault {
    Kind kind = Kind::kDuplicate;
    std::string method;  // its last part, such as "ExecuteSteps"
    Way way = Way::kThere;
    // kCorrupt: which bit, modulo those of the message. A message without bytes
    // is left to the next one.
    uint64_t bit = 0;
  };

  // Starts to listen. Calls wait for a target.
  static absl::StatusOr<std::unique_ptr<FaultProxy>> Start();

  // Ends all calls.
  ~FaultProxy();

  // "127.0.0.1:port", for those who are to go through here.
  const std::string& address() const { return address_; }

  // The server that calls from now on go to; those under way stay where they
  // are.
  void SetTarget(const std::string& address) ABSL_LOCKS_EXCLUDED(mu_);

  // Nothing goes that way any more, neither messages nor that a call begins,
  // ends or is cancelled, as if packets were lost; both ends see their
  // connections stay. Heal() lets what was held back go on, in order and late,
  // as TCP would.
  void Cut(Way way) ABSL_LOCKS_EXCLUDED(mu_);
  // Both ways.
  void Cut() ABSL_LOCKS_EXCLUDED(mu_);
  void Heal() ABSL_LOCKS_EXCLUDED(mu_);

  // Only calls of `method` (its last part) are cut; empty for all, as at first.
  void CutOnly(const std::string& method) ABSL_LOCKS_EXCLUDED(mu_);

  // Each message, and each beginning and end of a call, takes so long from now
  // on, either way; they stay in order. Zero to end it.
  void Delay(absl::Duration delay) ABSL_LOCKS_EXCLUDED(mu_);

  // Lets the fault happen to the next message that it is for. Those for the
  // same method and way happen one after the other.
  void Add(const MessageFault& fault) ABSL_LOCKS_EXCLUDED(mu_);

  // Forgets faults that have not happened yet.
  void ClearFaults() ABSL_LOCKS_EXCLUDED(mu_);

  // Ends every call under way with UNAVAILABLE, to both sides.
  void BreakStreams() ABSL_LOCKS_EXCLUDED(mu_);

  // Faults of Add() that have happened.
  int64_t n_happened() const ABSL_LOCKS_EXCLUDED(mu_);

  // Waits until that many have; false after `timeout`.
  bool AwaitHappened(int64_t n, absl::Duration timeout)
      ABSL_LOCKS_EXCLUDED(mu_);

  // Messages carried so far of a method, one way.
  int64_t n_messages(absl::string_view method, Way way) const
      ABSL_LOCKS_EXCLUDED(mu_);

 private:
  class Call;
  class Service;
  friend class Call;

  FaultProxy() = default;
  absl::Status Init();
  // Sends what is due, and sleeps until something may be.
  void PumpMain() ABSL_LOCKS_EXCLUDED(mu_);
  bool IsCut(const std::string& method, Way way) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  struct Counted {
    std::string method;
    Way way;
    int64_t n_messages;
  };
  int64_t* CountOf(absl::string_view method, Way way)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  std::string address_;
  std::unique_ptr<Credentials> credentials_;
  std::unique_ptr<Service> service_;
  std::unique_ptr<grpc::Server> server_;

  mutable absl::Mutex mu_;
  std::shared_ptr<grpc::Channel> target_ ABSL_GUARDED_BY(mu_);
  bool cut_there_ ABSL_GUARDED_BY(mu_) = false;
  bool cut_back_ ABSL_GUARDED_BY(mu_) = false;
  std::string cut_method_ ABSL_GUARDED_BY(mu_);
  absl::Duration delay_ ABSL_GUARDED_BY(mu_);
  std::deque<MessageFault> faults_ ABSL_GUARDED_BY(mu_);
  int64_t n_happened_ ABSL_GUARDED_BY(mu_) = 0;
  std::vector<Counted> counts_ ABSL_GUARDED_BY(mu_);
  std::set<std::shared_ptr<Call>> calls_ ABSL_GUARDED_BY(mu_);
  // Something to look at has come, or changed.
  bool stirred_ ABSL_GUARDED_BY(mu_) = false;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;

  std::thread pump_;
};

}  // namespace tern

#endif  // TESTS_TESTING_FAULT_PROXY_H_
