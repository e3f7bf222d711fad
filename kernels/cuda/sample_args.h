#ifndef KERNELS_CUDA_SAMPLE_ARGS_H_
#define KERNELS_CUDA_SAMPLE_ARGS_H_

#include <cmath>
#include <cstdint>

namespace tern::cuda {

// How one row's token is chosen: what is left of SamplerParams
// (worker/sampler.h) without penalties, bias and a minimum length, whose rows a
// CPU samples.
struct SampleRow {
  uint64_t seed;
  uint64_t sample_index;
  uint64_t position;    // that the token will take
  uint64_t min_weight;  // of min-p: ceil((double)min_p * 2^40); 0 for none
  float temperature;    // 0 is greedy
  int32_t top_k;        // 0 keeps all
  float top_p;          // 1 keeps all
};

// Chooses the token of each row from its logits, bit for bit as
// docs/exactness.md, section 12. Pointers are to device memory.
struct SampleArgs {
  const float* logits = nullptr;    // [n_rows][vocab_size]
  int64_t logits_stride = 0;        // elements from a row to the next
  const SampleRow* rows = nullptr;  // [n_rows]
  // [n_rows], or null: 0 where the row's hidden state was not finite.
  const int32_t* is_finite = nullptr;
  int32_t* tokens = nullptr;  // [n_rows]; -1 where something was not finite
  int vocab_size = 0;         // below kSampleVocabularyMax
};

// Ids have 23 bits, so that a weight of 41 and an id fit a word.
inline constexpr int kSampleIdBits = 23;
inline constexpr int kSampleVocabularyMax = 1 << kSampleIdBits;

// SampleRow::min_weight of a sampler's min_p.
inline uint64_t MinWeight(float min_p) {
  return static_cast<uint64_t>(std::ceil(static_cast<double>(min_p) * 0x1p40));
}

}  // namespace tern::cuda

#endif  // KERNELS_CUDA_SAMPLE_ARGS_H_
