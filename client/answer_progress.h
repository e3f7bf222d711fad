#ifndef CLIENT_ANSWER_PROGRESS_H_
#define CLIENT_ANSWER_PROGRESS_H_

#include <map>
#include <string>

#include "proto/tern/v1/inference.pb.h"

namespace tern {

// What a caller has of an answer whose stream may break and be resumed, over
// all of its streams. Not thread-safe.
class AnswerProgress {
 public:
  // n_candidates: how many the request asks for.
  explicit AnswerProgress(int n_candidates) : n_candidates_(n_candidates) {}

  // Notes the next message, of a first stream or of a resumed one, and takes
  // out of it what the caller has already. False when nothing is left.
  bool Take(v1::StreamGenerateResponse* message);

  // Asks for the rest.
  v1::ResumeGenerateRequest Rest(const std::string& request_id) const;

  // A stream is about to begin: the next messages are its first.
  void BeginStream() { n_prompt_logprobs_seen_ = 0; }

  bool was_admitted() const { return has_info_ || has_begun(); }
  // Whether the caller has something of the answer itself.
  bool has_begun() const { return n_prompt_logprobs_ > 0 || !answers_.empty(); }
  // Whether it has all of it.
  bool is_complete() const { return is_complete_; }

 private:
  struct Answer {
    int n_tokens = 0;
    bool has_ended = false;
  };

  const int n_candidates_;
  bool has_info_ = false;
  bool is_complete_ = false;
  int n_prompt_logprobs_ = 0;
  int n_prompt_logprobs_seen_ = 0;  // in this stream
  std::map<int, Answer> answers_;   // by their index
};

}  // namespace tern

#endif  // CLIENT_ANSWER_PROGRESS_H_
