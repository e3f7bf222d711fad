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
#include "kernels/exp.h"
#include "util/logging.h"
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

// exp(z) * 2^40 rounds to 0 below this.
constexpr float kNegligible = -29;

bool AllFinite(absl::Span<const float> logits) {
  uint32_t found = 0;
  for (const float& logit : logits) {
    uint32_t bits;
    std::memcpy(&bits, &logit, sizeof(bits));
    found |= (bits & 0x7f800000u) == 0x7f800000u;
  }
  return found == 0;
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

// A tiny temperature must not make infinities, whose differences are NaN.
float Divide(float logit, float temperature) {
  constexpr float kMax = std::numeric_limits<float>::max();
  return std::min(std::max(logit / temperature, -kMax), kMax);
}

bool ZPrecedes(const Candidate& a, const Candidate& b) {
  return a.z != b.z ? a.z > b.z : a.id < b.id;
}
bool WeightPrecedes(const Candidate& a, const Candidate& b) {
  return a.weight != b.weight ? a.weight > b.weight : a.id < b.id;
}
bool IdPrecedes(const Candidate& a, const Candidate& b) { return a.id < b.id; }

// The k best candidates, ascending by id. Holds at most 2 k at a time, so that
// a small k costs little more than reading the logits.
void SelectTopK(absl::Span<const float> logits, float temperature, size_t k,
                Candidates* best) {
  const size_t room = std::max<size_t>(2 * k, 1024);
  float bar = -std::numeric_limits<float>::infinity();
  best->clear();
  const auto cut = [&] {
    std::nth_element(best->begin(), best->begin() + (k - 1), best->end(),
                     ZPrecedes);
    best->resize(k);
    bar = best->back().z;
  };
  for (size_t id = 0; id < logits.size(); ++id) {
    const float z = Divide(logits[id], temperature);
    // Ids ascend: one that merely equals the k-th best comes too late.
    if (!(z > bar)) continue;
    best->push_back({0, z, static_cast<int32_t>(id)});
    if (best->size() == room) cut();
  }
  if (best->size() > k) cut();
  std::sort(best->begin(), best->end(), IdPrecedes);
}

// Sets the weights and drops candidates of weight 0, which nothing can choose.
void SetWeights(Candidates* candidates) {
  float z_max = -std::numeric_limits<float>::infinity();
  for (const Candidate& c : *candidates) z_max = std::max(z_max, c.z);
  size_t n_kept = 0;
  for (Candidate c : *candidates) {
    const float d = c.z - z_max;
    if (d < kNegligible) continue;
    // Adding 2^52 rounds half to even to an integer.
    const double scaled = static_cast<double>(Exp(d)) * kWeightOne;
    c.weight = static_cast<uint64_t>((scaled + 0x1p52) - 0x1p52);
    if (c.weight > 0) (*candidates)[n_kept++] = c;
  }
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

}  // namespace

absl::StatusOr<int32_t> SampleToken(absl::Span<const float> logits,
                                    const SamplerParams& params,
                                    int32_t position, SamplerScratch* scratch) {
  DCHECK(!logits.empty() && logits.size() < (size_t{1} << 23));
  if (!AllFinite(logits)) {
    return absl::DataLossError(
        absl::StrCat("the model produced non-finite logits for position ",
                     position, "; its file may be damaged"));
  }
  if (params.temperature == 0) return Argmax(logits);

  Candidates& candidates = scratch->candidates;
  const size_t k = params.top_k;
  if (k > 0 && k < logits.size()) {
    SelectTopK(logits, params.temperature, k, &candidates);
  } else {
    candidates.resize(logits.size());
    for (size_t id = 0; id < logits.size(); ++id) {
      candidates[id] = {0, Divide(logits[id], params.temperature),
                        static_cast<int32_t>(id)};
    }
  }
  SetWeights(&candidates);
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

}  // namespace tern
