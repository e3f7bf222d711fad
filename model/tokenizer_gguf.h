#ifndef MODEL_TOKENIZER_GGUF_H_
#define MODEL_TOKENIZER_GGUF_H_

#include "absl/status/status.h"
#include "model/gguf_reader.h"
#include "model/tokenizer.h"

namespace tern {

// Fills a new state from tokenizer.ggml.*; errors as Tokenizer::FromGguf.
absl::Status ReadGgufTokenizer(const GgufReader& file, int vocab_size,
                               Tokenizer::State* state);

}  // namespace tern

#endif  // MODEL_TOKENIZER_GGUF_H_
