#ifndef COORDINATOR_GENERATION_H_
#define COORDINATOR_GENERATION_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "coordinator/engine.h"
#include "coordinator/kept_request.h"
#include "coordinator/request_validation.h"
#include "coordinator/stop_scanner.h"
#include "coordinator/token_stream.h"
#include "model/tokenizer.h"
#include "proto/tern/v1/inference.pb.h"

namespace tern {

// The caller's end of one request: hands it to the engine, and turns the tokens
// that come back into the texts of its candidates, without half characters,
// each up to its first stop string.
//
// Not thread-safe: its owner (a reactor) calls it under its own lock. Cancels
// the request when destroyed before its end; one that may be resumed it leaves.
class Generation {
 public:
  // `engine` and `model` outlive it.
  Generation(Engine* engine, const ServedModel* model, CheckedRequest request);

  // Reads a request that may be resumed. skip: of each candidate, tokens that
  // the caller has already; what they made is left out. Empty: none.
  Generation(std::shared_ptr<KeptRequest> kept, const std::vector<int>& skip);

  ~Generation();
  Generation(const Generation&) = delete;
  Generation& operator=(const Generation&) = delete;

  // Hands the request over, once. `wake` is called when Collect() may have
  // something new; see TokenStream.
  void Start(std::string principal, SequenceClass sequence_class,
             absl::Time deadline, std::function<void()> wake);

  // The same for a request that may be resumed: takes it over from whoever
  // reads it. With `is_stand_in` only when nobody does; false otherwise.
  bool Attach(std::function<void()> wake, bool is_stand_in = false);

  // What came since the last call.
  struct Piece {
    bool admitted = false;  // at any time so far
    // Of the prompt's next tokens, when asked for. All have come when the first
    // token of a candidate does.
    std::vector<v1::TokenLogprob> prompt_logprobs;
    bool ended = false;   // every candidate has, or one has failed
    absl::Status status;  // when it ended
    std::optional<absl::Duration> retry_after;  // see SequenceEnd
  };
  // Adds to candidates, where `candidate` says, what is new of each: text, the
  // tokens and log-probabilities asked for (without the token that stopped it),
  // and how it ended.
  // REQUIRES: Start() was called, or Attach() was true; no piece ended yet.
  using CandidateAt = absl::FunctionRef<v1::Candidate*(int index)>;
  Piece Collect(CandidateAt candidate);

  // Collect() for want of anyone who wants it: whether it has ended.
  bool CollectForNobody();

  // Ends it without a piece.
  void Cancel();

  // Parts of responses. PromptInfo() is complete once admitted.
  v1::PromptInfo PromptInfo() const;
  v1::Usage Usage() const;
  // Of what was given out of the candidates.
  std::vector<v1::NumericsChange> NumericsChanges() const;

 private:
  // One candidate.
  struct Sample {
    Sample(const Tokenizer* tokenizer, std::vector<std::string> stop_strings)
        : decoder(tokenizer), scanner(std::move(stop_strings)) {}

    IncrementalDecoder decoder;
    StopScanner scanner;
    std::shared_ptr<TokenStream> stream;
    TokenStream::Taken taken;  // its memory serves again and again
    bool begun = false;        // the echo has been given out
    bool ended = false;
    SequenceEnd end;
    int n_output = 0;
    int n_skipped = 0;  // of them the first so many are known to the caller
    std::string known_text;  // of those; scratch
    std::vector<NumericsChange> numerics_changes;
  };

  void CollectSample(int index, v1::Candidate* candidate, Piece* piece);
  void AddPromptLogprobs(const std::vector<TokenLogprobs>& logprobs,
                         Piece* piece);
  void AddToken(const TokenStream::Taken& taken, size_t i,
                v1::Candidate* candidate) const;
  v1::TokenLogprob LogprobOf(int32_t token,
                             const TokenLogprobs& logprobs) const;
  void CancelSample(int index);
  static void SetEnd(const Sample& sample, v1::Candidate* candidate);

  Engine* const engine_;                     // or:
  const std::shared_ptr<KeptRequest> kept_;  // null without a resume window
  int reader_ = 0;                           // what Attach() gave for it
  const ServedModel* const model_;
  const int64_t ticket_;
  const std::string request_id_;
  const int64_t seed_;
  const int n_prompt_;
  const bool return_token_ids_;
  const int min_output_tokens_;
  const std::string echo_;
  SequenceParameters parameters_;  // until Start()
  // Tokens of the prompt whose log-probabilities are wanted, in order.
  std::vector<int32_t> scored_tokens_;
  size_t n_scored_ = 0;        // of them
  bool skips_prompt_ = false;  // the caller has all of them

  std::vector<Sample> samples_;
  bool started_ = false;
  bool ended_ = false;
  bool admitted_ = false;
  std::string numerics_id_;
};

// What a response says of a request that was answered, beside the answers.
void SetSummary(const Generation& generation, v1::GenerateResponse* response);

// The place of a candidate in a response, which gets candidates as needed.
v1::Candidate* CandidateOf(v1::GenerateResponse* response, int index);

// Appends those of a piece, which has none afterwards.
void MovePromptLogprobs(Generation::Piece* piece,
                        v1::GenerateResponse* response);

}  // namespace tern

#endif  // COORDINATOR_GENERATION_H_
