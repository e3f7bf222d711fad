#ifndef WORKER_SAMPLER_H_
#define WORKER_SAMPLER_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/kernels.h"
#include "worker/token_history.h"
#include "worker/wanted_logits.h"

namespace tern {

// Added to the logit of a token.
struct LogitBias {
  int32_t token_id;
  float bias;  // in [-100, 100]
};

// How one sequence's tokens are chosen.
struct SamplerParams {
  float temperature = 1;  // in [0, 100]; 0 is greedy
  int32_t top_k = 0;      // 0 keeps all
  float top_p = 1;        // in (0, 1]
  float min_p = 0;        // in [0, 1]
  uint64_t seed = 0;
  int32_t sample_index = 0;

  // What changes the logits before that.
  float repetition_penalty = 1;            // in (0, 10]
  float frequency_penalty = 0;             // in [-2, 2]
  float presence_penalty = 0;              // in [-2, 2]
  std::vector<LogitBias> logit_bias = {};  // ids of the vocabulary, each once
  // While the output is shorter than this, no stop token is a candidate.
  int32_t min_output_tokens = 0;
  std::vector<int32_t> stop_token_ids = {};  // ids of the vocabulary
  int32_t prompt_token_count = 0;            // where the output begins

  // Alternatives to return with each token's log-probability; -1 for neither.
  int32_t logprobs = -1;
  // Alternatives to return with each token of the prompt that is scored.
  int32_t prompt_logprobs = 0;

  // Whether the result depends on which tokens the sequence holds.
  bool NeedsHistory() const {
    return repetition_penalty != 1 || frequency_penalty != 0 ||
           presence_penalty != 0;
  }
};

// The logits that choosing the token at `position` depends on, and its
// log-probabilities if they are asked for.
WantedLogits LogitsWantedBy(const SamplerParams& params, int32_t position);

// Room that sampling needs; one per thread, kept to avoid allocation.
struct SamplerScratch {
  // Every table computes the same bits.
  const Kernels* kernels = &BestKernels();

  struct Candidate {
    uint64_t weight;
    float z;
    int32_t id;
  };
  std::vector<float> adjusted;  // logits
  std::vector<float> z;         // of every id
  std::vector<Candidate> candidates;
  std::vector<Candidate> selection;
};

// Chooses the token at `position` of a sequence from its logits, one per token
// id, of which those that LogitsWantedBy() leaves out may be any lower ones.
// Pure: the result depends on the arguments alone, and equals that of
// docs/exactness.md ("Sampling") bit for bit.
//
// history: the tokens before `position`, all of the vocabulary; may be null for
//          none. Looked at when params.NeedsHistory().
//
// DATA_LOSS when a logit is infinite or NaN; INVALID_ARGUMENT when the minimum
// length leaves no candidate. `scratch` is overwritten.
// REQUIRES: logits not empty and below 2^23 many; params in their ranges.
absl::StatusOr<int32_t> SampleToken(absl::Span<const float> logits,
                                    const SamplerParams& params,
                                    int32_t position, SamplerScratch* scratch,
                                    const TokenHistory* history = nullptr);

// A token and the logarithm of its probability.
struct TokenLogprob {
  int32_t token_id;
  float logprob;
};

// What the model thought of a token, by its logits alone.
struct TokenLogprobs {
  float logprob = 0;
  std::vector<TokenLogprob> alternatives = {};  // the likeliest first
};

// The log-probabilities of `token` and of the `n_alternatives` likeliest tokens
// (all of them when there are fewer), bit for bit as docs/exactness.md has them
// ("Log-probabilities"). Pure. `scratch` is overwritten.
// REQUIRES: logits finite, not empty and below 2^23 many; token among them.
TokenLogprobs ComputeLogprobs(absl::Span<const float> logits, int32_t token,
                              int n_alternatives, SamplerScratch* scratch);

// The same of a given token at `position`: DATA_LOSS when a logit is infinite
// or NaN, as in SampleToken().
absl::StatusOr<TokenLogprobs> ScoreToken(absl::Span<const float> logits,
                                         int32_t token, int n_alternatives,
                                         int32_t position,
                                         SamplerScratch* scratch);

}  // namespace tern

#endif  // WORKER_SAMPLER_H_
