#ifndef WORKER_WANTED_LOGITS_H_
#define WORKER_WANTED_LOGITS_H_

#include <cstdint>

namespace tern {

// Which logits of a row its sampler tells apart. Those that are not wanted may
// be anything finite that is below the wanted ones.
struct WantedLogits {
  // The k highest in the order of top-k, by z and then by id; 0 for all logits.
  int32_t top_k = 0;
  float temperature = 0;  // that z is made with

  bool operator==(const WantedLogits& other) const {
    return top_k == other.top_k && temperature == other.temperature;
  }
};

// z as docs/exactness.md has it ("Sampling"): the logit divided by the
// temperature, or just the logit when that is 0. Never falls as the logit
// grows.
float ScaledLogit(float logit, float temperature);

// The lowest logit whose z is that of `logit`, which must be finite.
float LowestWithSameZ(float logit, float temperature);

}  // namespace tern

#endif  // WORKER_WANTED_LOGITS_H_
