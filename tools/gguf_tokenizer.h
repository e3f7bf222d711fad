#ifndef TOOLS_GGUF_TOKENIZER_H_
#define TOOLS_GGUF_TOKENIZER_H_

#include <vector>

#include "absl/status/status.h"
#include "model/gguf_writer.h"
#include "model/model_source.h"
#include "model/tokenizer.h"

namespace tern {

// Sets tokenizer.ggml.* of a GGUF file to a tokenizer that is read from
// tokenizer.json. Rows of the vocabulary without a token become unused tokens,
// [PAD<id>].
//
// UNIMPLEMENTED, with what it is, when a GGUF file cannot say what the
// tokenizer does: the tokenizer that would be read from the file is compared
// with this one (see CompareTokenizers()) before anything is set. Otherwise the
// errors of Tokenizer::FromJson().
absl::Status SetTokenizerKeys(const ModelSource::TokenizerFiles& files,
                              int vocab_size, GgufHeader* header);

// Whether two tokenizers do the same: bytes and kind of each token, ids with a
// meaning, and the tokens of many texts, with and without special tokens, and
// back. The texts are each token's own, alone, thrice between words, and among
// its neighbours in the vocabulary, runs of white space and of digits, and
// words of several scripts. INVALID_ARGUMENT says what is the first difference.
//
// unused: tokens whose bytes may differ, by id.
absl::Status CompareTokenizers(const Tokenizer& a, const Tokenizer& b,
                               const std::vector<bool>& unused);

}  // namespace tern

#endif  // TOOLS_GGUF_TOKENIZER_H_
