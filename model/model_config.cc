#include "model/model_config.h"

#include "absl/strings/str_cat.h"

namespace tern {

absl::Status CheckWidth(absl::string_view name, int64_t width) {
  if (width > kWidthMax || width % kWidthMultiple != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(name, " is ", width, "; Tern serves multiples of ",
                     kWidthMultiple, " up to ", kWidthMax));
  }
  return absl::OkStatus();
}

absl::Status CheckHeadDim(int head_dim) {
  if (head_dim % 2 != 0 || head_dim < 2 || head_dim > kHeadDimMax) {
    return absl::InvalidArgumentError(absl::StrCat(
        "a head has ", head_dim,
        " elements; Tern serves even numbers from 2 to ", kHeadDimMax));
  }
  return absl::OkStatus();
}

}  // namespace tern
