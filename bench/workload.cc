#include "bench/workload.h"

#include <algorithm>
#include <random>

#include "absl/random/distributions.h"
#include "absl/strings/str_cat.h"

namespace tern {
namespace {

// Streams of random numbers that have nothing to do with each other.
enum Purpose : uint32_t { kRequest = 1, kPrefix = 2 };

std::mt19937_64 RandomFor(uint64_t seed, Purpose purpose, uint64_t index) {
  std::seed_seq words{
      static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32),
      static_cast<uint32_t>(purpose), static_cast<uint32_t>(index),
      static_cast<uint32_t>(index >> 32)};
  return std::mt19937_64(words);
}

void AppendTokens(size_t n, int vocab_size, std::mt19937_64* random,
                  std::vector<int32_t>* tokens) {
  for (size_t i = 0; i < n; ++i) {
    tokens->push_back(absl::Uniform<int32_t>(*random, 0, vocab_size));
  }
}

}  // namespace

absl::Status Workload::Check(const WorkloadOptions& options) {
  const auto wrong = [](const auto&... what) {
    return absl::InvalidArgumentError(absl::StrCat(what...));
  };
  if (options.shared_prefix_tokens < 0 || options.prefix_groups < 1) {
    return wrong(
        "--shared_prefix_tokens must be at least 0 and "
        "--prefix_groups at least 1");
  }
  if (options.shared_prefix_tokens >= options.prompt_tokens.max()) {
    return wrong("--shared_prefix_tokens is ", options.shared_prefix_tokens,
                 "; prompts have ", options.prompt_tokens.max(),
                 " tokens at the most, and each needs one of its own");
  }
  const int64_t longest = int64_t{options.prompt_tokens.max()} + 1;
  if (longest > options.context_length) {
    return wrong("--prompt_tokens goes up to ", options.prompt_tokens.max(),
                 "; this model's context holds ", options.context_length,
                 ", answer included: write a smaller one, or a maximum behind "
                 "it (lognormal:MEDIAN,SIGMA,MAX)");
  }
  if (!(options.cancel_share >= 0 && options.cancel_share <= 1)) {
    return wrong("--cancel_share is ", options.cancel_share,
                 "; it must be in [0, 1]");
  }
  return absl::OkStatus();
}

Workload::Workload(const WorkloadOptions& options) : options_(options) {
  prefixes_.resize(options.prefix_groups);
  for (size_t group = 0; group < prefixes_.size(); ++group) {
    std::mt19937_64 random = RandomFor(options.seed, kPrefix, group);
    AppendTokens(options.shared_prefix_tokens, options.vocab_size, &random,
                 &prefixes_[group]);
  }
}

PlannedRequest Workload::Make(int64_t index) const {
  std::mt19937_64 random =
      RandomFor(options_.seed, kRequest, static_cast<uint64_t>(index));
  PlannedRequest request;
  request.sampling_seed = random() >> 1;
  const size_t n_prompt = std::max(options_.prompt_tokens.Draw(random),
                                   options_.shared_prefix_tokens + 1);
  request.output_tokens = options_.output_tokens.Draw(random);
  const size_t group = absl::Uniform<size_t>(random, 0, prefixes_.size());
  if (absl::Bernoulli(random, options_.cancel_share)) {
    request.cancel_at_tokens =
        absl::Uniform(absl::IntervalClosed, random, 1,
                      std::max(1, request.output_tokens - 1));
  }
  request.prompt = prefixes_[group];
  request.prompt.reserve(n_prompt);
  AppendTokens(n_prompt - request.prompt.size(), options_.vocab_size, &random,
               &request.prompt);
  return request;
}

}  // namespace tern
