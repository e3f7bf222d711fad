#ifndef COORDINATOR_KEPT_REQUEST_H_
#define COORDINATOR_KEPT_REQUEST_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "coordinator/engine.h"
#include "coordinator/journal.h"
#include "coordinator/model_instance.h"
#include "coordinator/request_log.h"
#include "coordinator/token_stream.h"
#include "util/clock.h"

namespace tern {

// A request that outlives its readers: stands between the engine, whose streams
// it empties at once into the request's log, and the one who reads at the
// moment, if anyone does, who gets the whole log first and then what comes.
//
// Thread-safe.
class KeptRequest : public std::enable_shared_from_this<KeptRequest> {
 public:
  // What all of them share. Everything outlives them.
  struct Context {
    Journal* journal = nullptr;  // null: none is kept
    Clock* clock = nullptr;
    // Once set, ends are not remembered: it is the coordinator that ends, and
    // the next one goes on.
    std::atomic<bool> is_closing{false};
    // Called when a reader has left a request that goes on. May be empty.
    std::function<void(std::shared_ptr<KeptRequest>)> on_left;
  };

  // `log` is what was asked for, and what had come of it before. number: its
  // name in the journal; 0 for one that has none yet. deadline: of the request,
  // by `context`'s clock, and so is idle_since; see State.
  KeptRequest(Context* context, std::shared_ptr<ModelInstance> model,
              RequestLog log, int64_t number, absl::Time deadline,
              absl::Time idle_since);

  // Hands it to the engine, once; what it has of it already included.
  void Submit() ABSL_LOCKS_EXCLUDED(mu_);

  // The model that answers.
  const ServedModel& model() const { return model_->served(); }
  // As it was asked for.
  const CheckedRequest& request() const { return request_; }
  const std::string& principal() const { return principal_; }
  absl::Duration resume_window() const { return resume_window_; }

  // Makes `streams`, one for each candidate, those of the reader: they get all
  // that there is and what comes. Who read before is cut off with ABORTED.
  // Returns the reader's number. With `is_stand_in`, which reads for want of
  // anyone else, only when nobody reads, and otherwise returns 0.
  int Attach(const std::vector<std::shared_ptr<TokenStream>>& streams,
             bool is_stand_in) ABSL_LOCKS_EXCLUDED(mu_);

  // The reader has gone. Nothing happens when another one has taken over.
  void Detach(int reader) ABSL_LOCKS_EXCLUDED(mu_);

  // A stop string was found: the candidate has ended, and the engine need not
  // go on with it.
  void StopSample(int index) ABSL_LOCKS_EXCLUDED(mu_);

  // Tells the engine that nobody wants it any more.
  void Drop() ABSL_LOCKS_EXCLUDED(mu_);

  // How it stands.
  struct State {
    bool is_refused = false;  // never admitted, and will not be
    bool has_ended = false;
    bool has_failed = false;  // and was not answered
    // Since when nobody reads it, or since when it has ended; InfiniteFuture
    // while it is read and goes on.
    absl::Time idle_since;
    int64_t number = 0;         // in the journal, 0 for none
    int64_t n_bytes = 0;        // of its log, about
    std::vector<int> n_tokens;  // of each candidate
  };
  State state() const ABSL_LOCKS_EXCLUDED(mu_);

 private:
  using Streams = std::vector<std::shared_ptr<TokenStream>>;

  // Takes what the engine has brought to the stream of a candidate.
  void OnTokens(int index) ABSL_LOCKS_EXCLUDED(mu_);
  void Admit(const std::string& numerics_id) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Append(int index, const TokenStream::Taken& taken)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void End(int index, const SequenceEnd& end)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Those of the engine's sequences that run for nothing, once each.
  std::vector<int64_t> Superfluous() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void CancelAll(const std::vector<int64_t>& tickets);
  void Remember(JournalEvent event) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  TokenStream::Taken Everything(int index) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  Context* const context_;
  const std::shared_ptr<ModelInstance> model_;
  const CheckedRequest request_;
  const std::string principal_;
  const absl::Duration resume_window_;
  const absl::Time deadline_;
  const int64_t first_ticket_;
  Streams from_engine_;                    // set by Submit()
  std::vector<TokenStream::Taken> taken_;  // of the engine's thread

  mutable absl::Mutex mu_;
  RequestLog log_ ABSL_GUARDED_BY(mu_);  // without `request`
  int64_t number_ ABSL_GUARDED_BY(mu_) = 0;
  bool is_admitted_ ABSL_GUARDED_BY(mu_) = false;
  bool is_dropped_ ABSL_GUARDED_BY(mu_) = false;
  std::vector<bool> is_cancelled_ ABSL_GUARDED_BY(mu_);  // in the engine
  int64_t n_bytes_ ABSL_GUARDED_BY(mu_) = 0;
  Streams to_reader_ ABSL_GUARDED_BY(mu_);        // empty without one
  int reader_ ABSL_GUARDED_BY(mu_) = 0;           // number of the latest one
  bool has_reader_ ABSL_GUARDED_BY(mu_) = false;  // no stand-in
  absl::Time idle_since_ ABSL_GUARDED_BY(mu_);
};

}  // namespace tern

#endif  // COORDINATOR_KEPT_REQUEST_H_
