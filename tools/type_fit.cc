#include "tools/type_fit.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "kernels/float16.h"
#include "util/status_macros.h"

namespace tern {

absl::Status TypeFit::CheckShape(absl::string_view tensor, int64_t n_out,
                                 int64_t n_in) const {
  // I2_S is one stream, the others have blocks in each row.
  const bool is_stream = type_ == TernaryFormat::kI2S;
  const int64_t n = is_stream ? n_out * n_in : n_in;
  const int block = TernaryBlockWeights(type_);
  if (n % block == 0) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("tensor ", tensor, " has ", is_stream ? "" : "rows of ", n,
                   " weights, which ", TernaryFormatName(type_),
                   " cannot hold: it takes multiples of ", block,
                   is_stream ? "" : "; I2_S takes any rows"));
}

absl::Status TypeFit::Check(absl::string_view tensor, int64_t n_out,
                            int64_t n_in, float scale) {
  RETURN_IF_ERROR(CheckShape(tensor, n_out, n_in));
  if (!std::isfinite(scale)) {
    return absl::InvalidArgumentError(
        absl::StrCat("tensor ", tensor,
                     " has a scale that is not finite: the file is damaged"));
  }
  if (type_ == TernaryFormat::kI2S) return absl::OkStatus();
  const float rounded = HalfToFloat(FloatToHalf(scale));
  if (rounded == scale) return absl::OkStatus();
  if (!std::isfinite(rounded) || rounded == 0) {
    return absl::OutOfRangeError(
        absl::StrCat("tensor ", tensor, " has the scale ", scale,
                     ", which is beyond float16, in which ",
                     TernaryFormatName(type_), " keeps it; I2_S can hold it"));
  }
  if (rounded_++ == 0) first_rounded_ = std::string(tensor);
  rounding_max_ = std::max(rounding_max_,
                           std::fabs(static_cast<double>(rounded) / scale - 1));
  return absl::OkStatus();
}

absl::Status TypeFit::Finish() const {
  if (rounded_ == 0 || allow_rounding_) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(
      "the scales of ", rounded_, " matrices (the first is ", first_rounded_,
      ") are no float16 numbers, in which ", TernaryFormatName(type_),
      " keeps them: they would change by up to ", rounding_max_,
      " of their value, and the model's answers a little with them; "
      "--allow_rounding converts all the same"));
}

}  // namespace tern
