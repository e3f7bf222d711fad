#ifndef TOOLS_TYPE_FIT_H_
#define TOOLS_TYPE_FIT_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "model/ternary_codec.h"

namespace tern {

// Whether ternary matrices can be written in a type of GGUF files, and whether
// their scales stay what they are. Not thread-safe.
class TypeFit {
 public:
  TypeFit(TernaryFormat type, bool allow_rounding)
      : type_(type), allow_rounding_(allow_rounding) {}

  // Looks at a matrix of `n_out` rows of `n_in` weights. INVALID_ARGUMENT when
  // the type cannot hold its shape or the scale is not finite, OUT_OF_RANGE
  // when float16 cannot hold the scale at all where the type keeps it so.
  absl::Status Check(absl::string_view tensor, int64_t n_out, int64_t n_in,
                     float scale);

  // FAILED_PRECONDITION when scales of what was checked would have to be
  // rounded and that is not allowed.
  absl::Status Finish() const;

  // Matrices whose scale changes, and by how much at most: |new / old - 1|.
  int rounded() const { return rounded_; }
  double rounding_max() const { return rounding_max_; }

 private:
  absl::Status CheckShape(absl::string_view tensor, int64_t n_out,
                          int64_t n_in) const;

  const TernaryFormat type_;
  const bool allow_rounding_;
  int rounded_ = 0;
  double rounding_max_ = 0;
  std::string first_rounded_;
};

}  // namespace tern

#endif  // TOOLS_TYPE_FIT_H_
