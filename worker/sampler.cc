#include "worker/sampler.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "absl/base/optimization.h"
#include "absl/numeric/bits.h"
#include "absl/numeric/int128.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/log_double.h"
#include "util/logging.h"
#include "util/status_macros.h"
#include "worker/philox.h"

namespace tern {
namespace {

using Candidate = SamplerScratch::Candidate;
using Candidates = std::vector<Candidate>;

// Weights are multiples of 2^-40: sums of them are integers, so that no order
// of summation changes one.
constexpr double kWeightOne = 0x1p40;

// Largest integer below which float64 represents all of them.
constexpr uint64_t kExactDoubleMax = uint64_t{1} << 53;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Values that are taken at a time between vector code and scalar code.
constexpr size_t kBlock = 512;

bool AllFinite(absl::Span<const float> logits) {
  uint32_t found = 0;
  for (const float& logit : logits) {
    uint32_t bits;
    std::memcpy(&bits, &logit, sizeof(bits));
    found |= (bits & 0x7f800000u) == 0x7f800000u;
  }
  return found == 0;
}

absl::Status CheckFinite(absl::Span<const float> logits, int32_t position) {
  if (AllFinite(logits)) return absl::OkStatus();
  return absl::DataLossError(
      absl::StrCat("the model produced non-finite logits for position ",
                   position, "; its file may be damaged"));
}

int32_t Argmax(absl::Span<const float> logits) {
  size_t best = 0;
  float highest = logits[0];
  for (size_t i = 1; i < logits.size(); ++i) {
    // Rare, so a branch that is foreseen: without the hint each comparison
    // waits for the one before.
    if (ABSL_PREDICT_FALSE(logits[i] > highest)) {
      highest = logits[i];
      best = i;
    }
  }
  return static_cast<int32_t>(best);
}

// Infinities must not arise: their differences are NaN.
float Clamp(float x) {
  constexpr float kMax = std::numeric_limits<float>::max();
  return std::min(std::max(x, -kMax), kMax);
}

// The highest of finite values and -infinity. Sixteen at a time: one maximum
// after the other would wait for the one before.
float Highest(absl::Span<const float> values) {
  constexpr size_t kLanes = 16;
  float lanes[kLanes];
  std::fill(lanes, lanes + kLanes, -kInfinity);
  size_t i = 0;
  for (; i + kLanes <= values.size(); i += kLanes) {
    for (size_t j = 0; j < kLanes; ++j) {
      lanes[j] = values[i + j] > lanes[j] ? values[i + j] : lanes[j];
    }
  }
  for (; i < values.size(); ++i) lanes[0] = std::max(lanes[0], values[i]);
  return *std::max_element(lanes, lanes + kLanes);
}

// A factor exp(z - z_max) as a weight. Adding 2^52 rounds half to even to an
// integer.
uint64_t WeightOf(float factor) {
  const double scaled = static_cast<double>(factor) * kWeightOne;
  return static_cast<uint64_t>(
      static_cast<int64_t>((scaled + 0x1p52) - 0x1p52));
}

// The weights of z[0], z[1], ..., to `take(i, weight)` in this order.
template <typename Take>
void ForEachWeight(const Kernels& kernels, absl::Span<const float> z,
                   float z_max, Take take) {
  float factors[kBlock];
  for (size_t begin = 0; begin < z.size(); begin += kBlock) {
    const size_t n = std::min(kBlock, z.size() - begin);
    for (size_t j = 0; j < n; ++j) factors[j] = z[begin + j] - z_max;
    kernels.exp_each(factors, static_cast<int>(n), factors);
    for (size_t j = 0; j < n; ++j) take(begin + j, WeightOf(factors[j]));
  }
}

bool ZPrecedes(const Candidate& a, const Candidate& b) {
  return a.z != b.z ? a.z > b.z : a.id < b.id;
}
bool WeightPrecedes(const Candidate& a, const Candidate& b) {
  return a.weight != b.weight ? a.weight > b.weight : a.id < b.id;
}
bool IdPrecedes(const Candidate& a, const Candidate& b) { return a.id < b.id; }

// The k candidates with the highest z_of(value), ascending by id; fewer when
// fewer are not -infinity. z_of never falls as its value grows. Holds at most
// 2 k at a time, so that a small k costs little more than reading the values.
template <typename ZOf>
void SelectTopK(absl::Span<const float> values, size_t k, ZOf z_of,
                Candidates* best) {
  const size_t room = std::max<size_t>(2 * k, 1024);
  float bar = -kInfinity;        // to be exceeded, in terms of z
  float bar_value = -kInfinity;  // and of values, which spares most a division
  best->clear();
  const auto cut = [&] {
    std::nth_element(best->begin(), best->begin() + (k - 1), best->end(),
                     ZPrecedes);
    best->resize(k);
    bar = best->back().z;
    bar_value = values[best->back().id];
  };
  for (size_t id = 0; id < values.size(); ++id) {
    if (!(values[id] > bar_value)) continue;
    const float z = z_of(values[id]);
    // Ids ascend: one that merely equals the k-th best comes too late.
    if (!(z > bar)) continue;
    best->push_back({0, z, static_cast<int32_t>(id)});
    if (best->size() == room) cut();
  }
  if (best->size() > k) cut();
  std::sort(best->begin(), best->end(), IdPrecedes);
}

// Every id as a candidate, but those of weight 0, which nothing can choose:
// those at -infinity above all.
void WeighAll(const Kernels& kernels, absl::Span<const float> z,
              Candidates* candidates) {
  candidates->clear();
  const float z_max = Highest(z);
  if (z_max == -kInfinity) return;
  candidates->reserve(z.size());
  ForEachWeight(kernels, z, z_max, [&](size_t id, uint64_t weight) {
    if (weight > 0) {
      candidates->push_back({weight, z[id], static_cast<int32_t>(id)});
    }
  });
}

// Sets the weights and drops candidates of weight 0. `z` is overwritten.
void WeighSelected(const Kernels& kernels, std::vector<float>* z,
                   Candidates* candidates) {
  z->clear();
  for (const Candidate& c : *candidates) z->push_back(c.z);
  const float z_max = Highest(*z);
  size_t n_kept = 0;
  ForEachWeight(kernels, *z, z_max, [&](size_t i, uint64_t weight) {
    if (weight == 0) return;
    Candidate c = (*candidates)[i];
    c.weight = weight;
    (*candidates)[n_kept++] = c;
  });
  candidates->resize(n_kept);
}

uint64_t TotalWeight(const Candidates& candidates) {
  uint64_t total = 0;
  for (const Candidate& c : candidates) total += c.weight;
  return total;
}

// Keeps the shortest run of heaviest candidates whose weights reach `target`.
void KeepTopP(uint64_t target, Candidates* candidates, Candidates* selection) {
  // Weights with equal numbers of bits lie together in the order of weights:
  // their sums tell among which the run ends, and only those need an order.
  constexpr int kBuckets = 42;  // weights are at most 2^40
  uint64_t sums[kBuckets] = {};
  for (const Candidate& c : *candidates) {
    sums[absl::bit_width(c.weight)] += c.weight;
  }
  uint64_t reached = 0;
  int bucket = kBuckets - 1;
  while (bucket > 0 && reached + sums[bucket] < target) {
    reached += sums[bucket--];
  }
  // The sum of all can be below a target that was rounded up.
  if (bucket == 0) return;
  selection->clear();
  for (const Candidate& c : *candidates) {
    if (static_cast<int>(absl::bit_width(c.weight)) == bucket) {
      selection->push_back(c);
    }
  }
  // By halves: what the heavier half sums to tells in which one the run ends,
  // so that all halvings together cost as much as two passes.
  auto begin = selection->begin();
  auto end = selection->end();
  while (end - begin > 1) {
    const auto middle = begin + (end - begin) / 2;
    std::nth_element(begin, middle, end, WeightPrecedes);
    uint64_t sum = reached;
    for (auto it = begin; it != middle; ++it) sum += it->weight;
    if (sum >= target) {
      end = middle;
    } else {
      reached = sum;
      begin = middle;
    }
  }
  const Candidate last = *begin;
  candidates->erase(std::remove_if(candidates->begin(), candidates->end(),
                                   [&last](const Candidate& c) {
                                     return WeightPrecedes(last, c);
                                   }),
                    candidates->end());
}

void KeepMinP(uint64_t least, Candidates* candidates) {
  candidates->erase(
      std::remove_if(candidates->begin(), candidates->end(),
                     [least](const Candidate& c) { return c.weight < least; }),
      candidates->end());
}

// The first candidate at which the running sum exceeds `r`.
int32_t Draw(const Candidates& candidates, uint64_t r) {
  uint64_t sum = 0;
  for (const Candidate& c : candidates) {
    sum += c.weight;
    if (sum > r) return c.id;
  }
  LOG(FATAL) << "a draw of " << r << " is not below the sum " << sum;
  return -1;
}

// Whether stop tokens are no candidates at `position`.
bool IsBelowMinimum(const SamplerParams& params, int32_t position) {
  return !params.stop_token_ids.empty() &&
         int64_t{position} - params.prompt_token_count <
             params.min_output_tokens;
}

// The logits with penalties and bias, in the order of docs/exactness.md: the
// given ones where nothing changes, a copy in `adjusted` otherwise.
absl::Span<const float> Adjust(absl::Span<const float> logits,
                               const SamplerParams& params,
                               const TokenHistory* history,
                               std::vector<float>* adjusted) {
  const bool penalises = history != nullptr && params.NeedsHistory();
  if (!penalises && params.logit_bias.empty()) return logits;
  adjusted->assign(logits.begin(), logits.end());
  if (penalises) {
    for (const auto& [id, count] : history->output_counts()) {
      float& logit = (*adjusted)[id];
      logit = logit > 0 ? logit / params.repetition_penalty
                        : logit * params.repetition_penalty;
      logit -= params.frequency_penalty * static_cast<float>(count);
      if (count > 0) logit -= params.presence_penalty;
      logit = Clamp(logit);
    }
  }
  for (const LogitBias& bias : params.logit_bias) {
    float& logit = (*adjusted)[bias.token_id];
    logit = Clamp(logit + bias.bias);
  }
  return *adjusted;
}

absl::Status NoCandidate(const SamplerParams& params) {
  return absl::InvalidArgumentError(absl::StrCat(
      "min_output_tokens is ", params.min_output_tokens,
      ", and until then every token of the vocabulary is masked as a stop "
      "token"));
}

// Temperature 0. -infinity marks what is no candidate.
absl::StatusOr<int32_t> SampleGreedily(absl::Span<const float> logits,
                                       const SamplerParams& params,
                                       bool below_minimum,
                                       std::vector<float>* copy) {
  if (!below_minimum) return Argmax(logits);
  if (logits.data() != copy->data()) copy->assign(logits.begin(), logits.end());
  for (const int32_t id : params.stop_token_ids) (*copy)[id] = -kInfinity;
  const int32_t best = Argmax(*copy);
  if ((*copy)[best] == -kInfinity) return NoCandidate(params);
  return best;
}

// Steps 1 to 3: the candidates after top-k that weigh anything, ascending by
// id.
void WeighCandidates(absl::Span<const float> logits,
                     const SamplerParams& params, bool below_minimum,
                     SamplerScratch* scratch) {
  const auto z_of = [temperature = params.temperature](float logit) {
    return ScaledLogit(logit, temperature);
  };
  const auto same = [](float z) { return z; };
  const size_t n = logits.size();
  const size_t k = params.top_k;
  const bool selects = k > 0 && k < n;
  std::vector<float>& z = scratch->z;
  if (selects && !below_minimum) {
    SelectTopK(logits, k, z_of, &scratch->candidates);
    WeighSelected(*scratch->kernels, &z, &scratch->candidates);
    return;
  }
  z.resize(n);
  for (size_t id = 0; id < n; ++id) z[id] = z_of(logits[id]);
  if (below_minimum) {
    // What is no candidate is never among the k highest, and weighs nothing.
    for (const int32_t id : params.stop_token_ids) z[id] = -kInfinity;
  }
  if (selects) {
    SelectTopK(z, k, same, &scratch->candidates);
    WeighSelected(*scratch->kernels, &z, &scratch->candidates);
  } else {
    WeighAll(*scratch->kernels, z, &scratch->candidates);
  }
}

}  // namespace

WantedLogits LogitsWantedBy(const SamplerParams& params, int32_t position) {
  // Penalties and bias can lift any token, log-probabilities are relative to
  // all.
  if (params.logprobs >= 0 || params.NeedsHistory() ||
      !params.logit_bias.empty()) {
    return {};
  }
  int64_t k = params.temperature == 0 ? 1 : params.top_k;
  if (k == 0) return {};
  // As many again may be masked.
  if (IsBelowMinimum(params, position)) k += params.stop_token_ids.size();
  if (k > std::numeric_limits<int32_t>::max()) return {};
  return {static_cast<int32_t>(k), params.temperature};
}

absl::StatusOr<int32_t> SampleToken(absl::Span<const float> logits,
                                    const SamplerParams& params,
                                    int32_t position, SamplerScratch* scratch,
                                    const TokenHistory* history) {
  DCHECK(!logits.empty() && logits.size() < (size_t{1} << 23));
  RETURN_IF_ERROR(CheckFinite(logits, position));
  const bool below_minimum = IsBelowMinimum(params, position);
  const absl::Span<const float> adjusted =
      Adjust(logits, params, history, &scratch->adjusted);
  if (params.temperature == 0) {
    return SampleGreedily(adjusted, params, below_minimum, &scratch->adjusted);
  }

  Candidates& candidates = scratch->candidates;
  WeighCandidates(adjusted, params, below_minimum, scratch);
  if (candidates.empty()) return NoCandidate(params);
  const uint64_t total = TotalWeight(candidates);
  // top_p = 1 keeps everything, unless `total` rounds in the product below.
  if (params.top_p < 1 || total > kExactDoubleMax) {
    const double target = std::ceil(static_cast<double>(params.top_p) *
                                    static_cast<double>(total));
    KeepTopP(static_cast<uint64_t>(target), &candidates, &scratch->selection);
  }
  if (params.min_p > 0) {
    const double least =
        std::ceil(static_cast<double>(params.min_p) * kWeightOne);
    KeepMinP(static_cast<uint64_t>(least), &candidates);
  }
  const uint64_t word =
      Philox4x64({static_cast<uint64_t>(position), 0, 0, 0},
                 {params.seed, static_cast<uint64_t>(params.sample_index)})[0];
  return Draw(candidates, absl::Uint128High64(absl::uint128(word) *
                                              TotalWeight(candidates)));
}

TokenLogprobs ComputeLogprobs(absl::Span<const float> logits, int32_t token,
                              int n_alternatives, SamplerScratch* scratch) {
  DCHECK(token >= 0 && static_cast<size_t>(token) < logits.size());
  const float highest = Highest(logits);
  uint64_t total = 0;
  ForEachWeight(*scratch->kernels, logits, highest,
                [&total](size_t, uint64_t weight) { total += weight; });
  // Scaling by a power of two is exact.
  const double log_total = LogDouble(static_cast<double>(total) / kWeightOne);
  const auto logprob = [highest, log_total](float logit) {
    const double difference =
        static_cast<double>(logit) - static_cast<double>(highest);
    constexpr double kLowest = std::numeric_limits<float>::lowest();
    return static_cast<float>(std::max(difference - log_total, kLowest));
  };
  TokenLogprobs out;
  out.logprob = logprob(logits[token]);
  if (n_alternatives > 0) {
    const size_t k = std::min<size_t>(n_alternatives, logits.size());
    SelectTopK(
        logits, k, [](float logit) { return logit; }, &scratch->candidates);
    std::sort(scratch->candidates.begin(), scratch->candidates.end(),
              ZPrecedes);
    out.alternatives.reserve(k);
    for (const Candidate& c : scratch->candidates) {
      out.alternatives.push_back({c.id, logprob(c.z)});
    }
  }
  return out;
}

absl::StatusOr<TokenLogprobs> ScoreToken(absl::Span<const float> logits,
                                         int32_t token, int n_alternatives,
                                         int32_t position,
                                         SamplerScratch* scratch) {
  RETURN_IF_ERROR(CheckFinite(logits, position));
  return ComputeLogprobs(logits, token, n_alternatives, scratch);
}

}  // namespace tern
