#ifndef MODEL_TOKENIZER_JSON_H_
#define MODEL_TOKENIZER_JSON_H_

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "model/tokenizer.h"

namespace tern {

// Fills a new state from the texts of tokenizer.json and, unless that is empty,
// tokenizer_config.json; errors as Tokenizer::FromJson.
absl::Status ReadJsonTokenizer(absl::string_view tokenizer_json,
                               absl::string_view tokenizer_config_json,
                               int vocab_size, Tokenizer::State* state);

}  // namespace tern

#endif  // MODEL_TOKENIZER_JSON_H_
