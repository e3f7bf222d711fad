#ifndef KERNELS_CUDA_SAMPLE_CANDIDATES_H_
#define KERNELS_CUDA_SAMPLE_CANDIDATES_H_

#include <cstdint>

#include "kernels/cuda/exact_math.h"
#include "kernels/cuda/sample_args.h"
#include "kernels/cuda/simt.h"

namespace tern::cuda {

// What SampleKernel calls a candidate: z and id in one word, lower words being
// higher z, and lower ids among equals. No two candidates are the same word.
using Candidate = uint64_t;

inline constexpr Candidate kNoCandidate = ~uint64_t{0};

SIMT_DEVICE Candidate MakeCandidate(float z, int id) {
  // -0 equals +0.
  const uint32_t bits = simt::FloatBits(z + 0.0f);
  const uint32_t ascending = bits >> 31 != 0 ? ~bits : bits | 0x80000000u;
  return uint64_t{~ascending} << kSampleIdBits | static_cast<uint32_t>(id);
}

SIMT_DEVICE int IdOf(Candidate candidate) {
  return static_cast<int>(candidate & (kSampleVocabularyMax - 1));
}

SIMT_DEVICE float ZOf(Candidate candidate) {
  const uint32_t ascending = ~static_cast<uint32_t>(candidate >> kSampleIdBits);
  return simt::FloatOfBits(ascending >> 31 != 0 ? ascending & 0x7fffffffu
                                                : ~ascending);
}

// The logit divided by the temperature, step 1 of section 12.
SIMT_DEVICE float ScaledLogit(float logit, float temperature) {
  if (temperature == 0) return logit;
  const float largest = simt::FloatOfBits(0x7f7fffffu);
  return MinOf(MaxOf(simt::Divide(logit, temperature), -largest), largest);
}

// round_half_even(factor * 2^40) for a factor in [0, 1], in integers: float64
// is slow on most cards.
SIMT_DEVICE uint64_t WeightOf(float factor) {
  constexpr int kBias = 127 + 23 - 40;  // exponent field of weight = mantissa
  const uint32_t bits = simt::FloatBits(factor);
  const int exponent = static_cast<int>(bits >> 23);
  // Exp() gives no subnormal numbers.
  if (exponent == 0) return 0;
  const uint64_t mantissa = (bits & 0x007fffffu) | 0x00800000u;
  if (exponent >= kBias) return mantissa << (exponent - kBias);
  const int shift = kBias - exponent;
  if (shift > 24) return 0;
  const uint64_t kept = mantissa >> shift;
  const uint64_t rest = mantissa & ((uint64_t{1} << shift) - 1);
  const uint64_t half = uint64_t{1} << (shift - 1);
  return kept + (rest > half || (rest == half && (kept & 1) != 0) ? 1 : 0);
}

// The first word of Philox4x64-10 with key (seed, sample_index) and counter
// (position, 0, 0, 0).
// Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as
// 1, 2, 3", SC 2011.
SIMT_DEVICE uint64_t RandomWord(const SampleRow& row) {
  constexpr uint64_t kMultiplier0 = 0xD2E7470EE14C6C93;
  constexpr uint64_t kMultiplier1 = 0xCA5A826395121157;
  uint64_t counter[4] = {row.position, 0, 0, 0};
  uint64_t key[2] = {row.seed, row.sample_index};
  SIMT_UNROLL
  for (int round = 0; round < 10; ++round) {
    const uint64_t high_a = simt::MultiplyHigh(kMultiplier0, counter[0]);
    const uint64_t high_b = simt::MultiplyHigh(kMultiplier1, counter[2]);
    const uint64_t low_a = kMultiplier0 * counter[0];
    const uint64_t low_b = kMultiplier1 * counter[2];
    counter[0] = high_b ^ counter[1] ^ key[0];
    counter[1] = low_b;
    counter[2] = high_a ^ counter[3] ^ key[1];
    counter[3] = low_a;
    key[0] += 0x9E3779B97F4A7C15;
    key[1] += 0xBB67AE8584CAA73B;
  }
  return counter[0];
}

// The candidates that are left, and an order and an amount of each.
struct Candidates {
  // Those of shared memory, or, if null, all logits of the row.
  const Candidate* list;
  int n;
  const float* logits;
  float temperature;
  // What the steps so far dropped.
  Candidate last;        // by z: those after it
  uint64_t last_weight;  // by WeightOrder(): those after it
  uint64_t min_weight;
  float z_max;

  SIMT_DEVICE Candidate At(int i) const {
    if (list != nullptr) return simt::LoadShared(list + i);
    return MakeCandidate(ScaledLogit(simt::Load(logits + i), temperature), i);
  }
  SIMT_DEVICE uint64_t Weight(Candidate c) const {
    return WeightOf(Exp(ZOf(c) - z_max));
  }
  // Heavier ones first, then lower ids.
  SIMT_DEVICE static uint64_t WeightOrder(uint64_t weight, int id) {
    return ((uint64_t{1} << 40) - weight) << kSampleIdBits |
           static_cast<uint32_t>(id);
  }
};

// What Select() of sample_select.h goes by: the order and amount of a
// candidate, false if it is dropped.
struct ByZ {
  static constexpr int kBits = 32 + kSampleIdBits;
  SIMT_DEVICE static bool Get(const Candidates& all, Candidate c,
                              uint64_t* order, uint64_t* amount) {
    *order = c;
    *amount = 1;
    return c <= all.last && c != kNoCandidate;
  }
};

struct ByWeight {
  static constexpr int kBits = 64;
  SIMT_DEVICE static bool Get(const Candidates& all, Candidate c,
                              uint64_t* order, uint64_t* amount) {
    if (c > all.last) return false;
    *amount = all.Weight(c);
    *order = Candidates::WeightOrder(*amount, IdOf(c));
    return *order <= all.last_weight && *amount >= all.min_weight;
  }
};

struct ById {
  static constexpr int kBits = kSampleIdBits;
  SIMT_DEVICE static bool Get(const Candidates& all, Candidate c,
                              uint64_t* order, uint64_t* amount) {
    const bool left = ByWeight::Get(all, c, order, amount);
    *order = static_cast<uint64_t>(IdOf(c));
    return left;
  }
};

}  // namespace tern::cuda

#endif  // KERNELS_CUDA_SAMPLE_CANDIDATES_H_
