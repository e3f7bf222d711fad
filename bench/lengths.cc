#include "bench/lengths.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "absl/random/distributions.h"
#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace tern {
namespace {

// More than any model's context.
constexpr int kLengthMax = 1 << 20;
constexpr double kSigmaMax = 10;

bool ParseLength(absl::string_view text, int* length) {
  return absl::SimpleAtoi(text, length) && *length >= 1 &&
         *length <= kLengthMax;
}

}  // namespace

absl::StatusOr<Lengths> Lengths::Parse(absl::string_view text) {
  Lengths lengths;
  absl::string_view rest = text;
  if (absl::ConsumePrefix(&rest, "uniform:")) {
    const std::pair<absl::string_view, absl::string_view> ends =
        absl::StrSplit(rest, absl::MaxSplits('-', 1));
    if (ParseLength(ends.first, &lengths.min_) &&
        ParseLength(ends.second, &lengths.max_) &&
        lengths.min_ <= lengths.max_) {
      return lengths;
    }
  } else if (absl::ConsumePrefix(&rest, "lognormal:")) {
    const std::vector<absl::string_view> parts = absl::StrSplit(rest, ',');
    int median = 0;
    lengths.shape_ = Shape::kLogNormal;
    lengths.max_ = kLengthMax;
    if ((parts.size() == 2 || parts.size() == 3) &&
        ParseLength(parts[0], &median) &&
        absl::SimpleAtod(parts[1], &lengths.sigma_) && lengths.sigma_ >= 0 &&
        lengths.sigma_ <= kSigmaMax &&
        (parts.size() == 2 || ParseLength(parts[2], &lengths.max_))) {
      lengths.log_median_ = std::log(median);
      return lengths;
    }
  } else if (ParseLength(text, &lengths.min_)) {
    lengths.max_ = lengths.min_;
    return lengths;
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "\"", text,
      "\" is no distribution of lengths: write 96, uniform:32-512, "
      "or lognormal:MEDIAN,SIGMA or lognormal:MEDIAN,SIGMA,MAX, with lengths "
      "in [1, ",
      kLengthMax, "] and sigma in [0, ", kSigmaMax, "]"));
}

int Lengths::Draw(absl::BitGenRef random) const {
  if (shape_ == Shape::kUniform) {
    return absl::Uniform(absl::IntervalClosed, random, min_, max_);
  }
  const double length =
      std::exp(absl::Gaussian<double>(random, log_median_, sigma_));
  // Compared as doubles: the largest do not fit an int.
  return static_cast<int>(std::lround(std::clamp<double>(length, min_, max_)));
}

}  // namespace tern
