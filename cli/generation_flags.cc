#include "cli/generation_flags.h"

#include <cstdint>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "util/status_macros.h"

ABSL_FLAG(float, temperature, 1,
          "Logits are divided by it, in [0, 100]. 0: always the most likely "
          "token.");
ABSL_FLAG(int, top_k, 0, "Keeps the k most likely tokens. 0: all.");
ABSL_FLAG(float, top_p, 1,
          "Keeps the fewest most likely tokens whose probabilities add up to "
          "at least this, in (0, 1].");
ABSL_FLAG(float, min_p, 0,
          "Drops tokens less likely than this share of the most likely one's "
          "probability, in [0, 1].");
ABSL_FLAG(float, repetition_penalty, 1,
          "Divides (multiplies if negative) the logits of tokens that occurred "
          "already, prompt included, in (0, 10]. 1: none.");
ABSL_FLAG(float, frequency_penalty, 0,
          "Subtracted from a token's logit for each time it occurred in the "
          "answer, in [-2, 2].");
ABSL_FLAG(float, presence_penalty, 0,
          "Subtracted once from the logit of tokens that occurred in the "
          "answer, in [-2, 2].");
ABSL_FLAG(std::string, logit_bias, "",
          "What to add to the logits of some tokens: ID:BIAS,ID:BIAS, each "
          "bias in [-100, 100].");
ABSL_FLAG(int64_t, seed, 0,
          "Seed of the random numbers: the same one gives the same text. Left "
          "out, the cluster draws one, which `tern generate --stats` shows.");
ABSL_FLAG(int, max_tokens, 256, "Most tokens to produce, at least 1.");
ABSL_FLAG(int, min_tokens, 0,
          "Tokens before which the answer does not end, at most --max_tokens.");
ABSL_FLAG(std::string, stop, "",
          "Text that ends the answer and is not part of it; \\n, \\t and \\\\ "
          "stand for the usual characters. May be given up to 16 times.");
ABSL_FLAG(std::string, stop_token_ids, "",
          "Token ids that end the answer, separated by commas.");
ABSL_FLAG(
    bool, ignore_eos, false,
    "Goes on past the model's end-of-sequence tokens, and past the end of "
    "a turn.");
ABSL_FLAG(absl::Duration, wait, absl::ZeroDuration(),
          "How long to wait for a cluster that is still loading, such as 30s.");

namespace tern {
namespace {

// Reads "ID:BIAS,ID:BIAS".
absl::Status AddLogitBias(absl::string_view text,
                          v1::SamplingParameters* sampling) {
  for (absl::string_view entry : absl::StrSplit(text, ',', absl::SkipEmpty())) {
    const std::vector<absl::string_view> parts = absl::StrSplit(entry, ':');
    int32_t id;
    float bias;
    if (parts.size() != 2 || !absl::SimpleAtoi(parts[0], &id) ||
        !absl::SimpleAtof(parts[1], &bias)) {
      return absl::InvalidArgumentError(
          absl::StrCat("--logit_bias: \"", entry, "\" is not ID:BIAS"));
    }
    if (!sampling->mutable_logit_bias()->insert({id, bias}).second) {
      return absl::InvalidArgumentError(
          absl::StrCat("--logit_bias: token ", id, " comes twice"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status SetGenerationParameters(const Arguments& arguments,
                                     v1::GenerateRequest* request) {
  v1::SamplingParameters& sampling = *request->mutable_sampling();
  if (arguments.Has("temperature")) {
    sampling.set_temperature(absl::GetFlag(FLAGS_temperature));
  }
  if (arguments.Has("top_k")) sampling.set_top_k(absl::GetFlag(FLAGS_top_k));
  if (arguments.Has("top_p")) sampling.set_top_p(absl::GetFlag(FLAGS_top_p));
  if (arguments.Has("min_p")) sampling.set_min_p(absl::GetFlag(FLAGS_min_p));
  if (arguments.Has("repetition_penalty")) {
    sampling.set_repetition_penalty(absl::GetFlag(FLAGS_repetition_penalty));
  }
  if (arguments.Has("frequency_penalty")) {
    sampling.set_frequency_penalty(absl::GetFlag(FLAGS_frequency_penalty));
  }
  if (arguments.Has("presence_penalty")) {
    sampling.set_presence_penalty(absl::GetFlag(FLAGS_presence_penalty));
  }
  RETURN_IF_ERROR(AddLogitBias(absl::GetFlag(FLAGS_logit_bias), &sampling));
  if (arguments.Has("seed")) sampling.set_seed(absl::GetFlag(FLAGS_seed));

  v1::StoppingParameters& stopping = *request->mutable_stopping();
  if (arguments.Has("max_tokens")) {
    stopping.set_max_output_tokens(absl::GetFlag(FLAGS_max_tokens));
  }
  if (arguments.Has("min_tokens")) {
    stopping.set_min_output_tokens(absl::GetFlag(FLAGS_min_tokens));
  }
  if (arguments.Has("stop")) {
    for (const std::string& text : arguments.given.at("stop")) {
      std::string error;
      if (!absl::CUnescape(text, stopping.add_stop_strings(), &error)) {
        return absl::InvalidArgumentError(
            absl::StrCat("--stop=", text, ": ", error));
      }
    }
  }
  for (absl::string_view id : absl::StrSplit(
           absl::GetFlag(FLAGS_stop_token_ids), ',', absl::SkipEmpty())) {
    int32_t number;
    if (!absl::SimpleAtoi(id, &number)) {
      return absl::InvalidArgumentError(
          absl::StrCat("--stop_token_ids: \"", id, "\" is no token id"));
    }
    stopping.add_stop_token_ids(number);
  }
  if (absl::GetFlag(FLAGS_ignore_eos)) {
    stopping.set_ignore_end_of_sequence(true);
  }
  return absl::OkStatus();
}

absl::Duration WaitFromFlag() { return absl::GetFlag(FLAGS_wait); }

}  // namespace tern
