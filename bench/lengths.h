#ifndef BENCH_LENGTHS_H_
#define BENCH_LENGTHS_H_

#include <string>

#include "absl/random/bit_gen_ref.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace tern {

// Numbers of tokens to draw from: of prompts, or of answers.
class Lengths {
 public:
  // Always 1.
  Lengths() = default;

  // Reads one of
  //   "96"                      always 96
  //   "uniform:32-512"          each of 32 to 512 alike
  //   "lognormal:128,0.8"       exp(N(ln 128, 0.8)): half are below 128
  //   "lognormal:128,0.8,1024"  the same, never above 1024
  // INVALID_ARGUMENT says what is wrong with it.
  static absl::StatusOr<Lengths> Parse(absl::string_view text);

  // Draws one, in [min(), max()].
  int Draw(absl::BitGenRef random) const;

  int min() const { return min_; }
  int max() const { return max_; }

 private:
  enum class Shape { kUniform, kLogNormal };

  Shape shape_ = Shape::kUniform;
  int min_ = 1;
  int max_ = 1;
  double log_median_ = 0;
  double sigma_ = 0;
};

}  // namespace tern

#endif  // BENCH_LENGTHS_H_
