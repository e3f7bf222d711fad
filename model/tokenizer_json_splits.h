#ifndef MODEL_TOKENIZER_JSON_SPLITS_H_
#define MODEL_TOKENIZER_JSON_SPLITS_H_

#include "absl/status/status.h"
#include "model/json_place.h"
#include "model/pretokenizer.h"
#include "model/text_normalizer.h"

namespace tern {

// Add the steps of tokenizer.json's `normalizer` and `pre_tokenizer`, either of
// which may be null. INVALID_ARGUMENT or UNIMPLEMENTED names the place.
absl::Status ReadJsonNormalizer(const JsonPlace& place,
                                TextNormalizer* normalizer);
absl::Status ReadJsonPretokenizer(const JsonPlace& place,
                                  Pretokenizer* pretokenizer);

}  // namespace tern

#endif  // MODEL_TOKENIZER_JSON_SPLITS_H_
