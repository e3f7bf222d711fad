#ifndef COORDINATOR_GENERATION_H_
#define COORDINATOR_GENERATION_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "coordinator/engine.h"
#include "coordinator/request_validation.h"
#include "coordinator/stop_scanner.h"
#include "coordinator/token_stream.h"
#include "model/tokenizer.h"
#include "proto/tern/v1/inference.pb.h"

namespace tern {

// The caller's end of one request: hands it to the engine, and turns the tokens
// that come back into text, without half characters, up to the first stop
// string.
//
// Not thread-safe: its owner (a reactor) calls it under its own lock. Cancels
// the request when destroyed before its end.
class Generation {
 public:
  // `engine` and `model` outlive it.
  Generation(Engine* engine, const ServedModel* model, CheckedRequest request);
  ~Generation();
  Generation(const Generation&) = delete;
  Generation& operator=(const Generation&) = delete;

  // Hands the request over, once. `wake` is called when Collect() may have
  // something new; see TokenStream.
  void Start(std::string principal, SequenceClass sequence_class,
             absl::Time deadline, std::function<void()> wake);

  // What came since the last call.
  struct Piece {
    bool admitted = false;  // at any time so far
    std::string text;
    std::vector<int32_t> token_ids;  // without the one that stopped it
    bool ended = false;
    absl::Status status;      // when it ended
    bool queue_full = false;  // see SequenceEnd
  };
  // REQUIRES: Start() was called, no piece ended yet.
  Piece Collect();

  // Ends it without a piece.
  void Cancel();

  // Parts of responses. PromptInfo() is complete once admitted.
  v1::PromptInfo PromptInfo() const;
  v1::Usage Usage() const;
  // Reason and cause.
  // REQUIRES: it ended with OK.
  void SetEnd(v1::Candidate* candidate) const;

  bool return_token_ids() const { return return_token_ids_; }

 private:
  Engine* const engine_;
  const ServedModel* const model_;
  const int64_t ticket_;
  const std::string request_id_;
  const int64_t seed_;
  const int n_prompt_;
  const bool return_token_ids_;
  SequenceParameters parameters_;  // until Start()

  IncrementalDecoder decoder_;
  StopScanner scanner_;
  std::shared_ptr<TokenStream> stream_;
  bool ended_ = false;
  std::string numerics_id_;
  SequenceEnd end_;
  int n_output_ = 0;
};

}  // namespace tern

#endif  // COORDINATOR_GENERATION_H_
