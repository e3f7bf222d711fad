#ifndef TOOLS_CONVERT_OPTIONS_H_
#define TOOLS_CONVERT_OPTIONS_H_

#include <cstdint>

#include "model/ternary_codec.h"

namespace tern {

struct ConvertOptions {
  TernaryFormat type = TernaryFormat::kI2S;
  // Scales that float16 does not have may be rounded to it.
  bool allow_rounding = false;
  // A file of the output's name may be replaced.
  bool overwrite = false;
};

struct ConvertResult {
  int64_t file_bytes = 0;
  int converted = 0;  // matrices that changed their type
  int rounded = 0;    // of them with another scale than before
  // Of the rounded scale that changed most, |new / old - 1|.
  double rounding_max = 0;
};

}  // namespace tern

#endif  // TOOLS_CONVERT_OPTIONS_H_
