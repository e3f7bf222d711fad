#include "tools/synthetic_vocabulary.h"

#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "model/gguf_reader.h"
#include "model/tokenizer.h"
#include "tests/testing/gguf_builder.h"

namespace tern {
namespace {

using testing::Bytes;
using testing::GgufBuilder;

Bytes TokenizerFile(const SyntheticVocabulary& vocabulary) {
  return GgufBuilder()
      .SetString("tokenizer.ggml.model", "gpt2")
      .SetString("tokenizer.ggml.pre", "llama-bpe")
      .SetStringArray("tokenizer.ggml.tokens", vocabulary.tokens)
      .SetInt32Array("tokenizer.ggml.token_type", vocabulary.types)
      .SetStringArray("tokenizer.ggml.merges", vocabulary.merges)
      .SetUint32("tokenizer.ggml.bos_token_id", vocabulary.bos_id)
      .SetUint32("tokenizer.ggml.eos_token_id", vocabulary.eos_id)
      .SetUint32("tokenizer.ggml.eot_token_id", vocabulary.eot_id)
      .Build();
}

TEST(SyntheticVocabulary, EverySizeMakesATokenizerThatGivesTextBack) {
  std::string every_byte = "caf\xc3\xa9 \xf0\x9f\x8c\x8d \xe4\xb8\xad ";
  for (char c = 1; c < 0x7f; ++c) every_byte += c;
  const std::string texts[] = {"the cat and the hat, that was for a station",
                               " bababa dedede\n\n  x", every_byte,
                               "<|eot_id|>"};
  for (int size : {kSyntheticVocabularyMin, 260, 300, 4352, 128256}) {
    const auto vocabulary = MakeSyntheticVocabulary(size);
    ASSERT_TRUE(vocabulary.ok()) << vocabulary.status();
    ASSERT_EQ(vocabulary->tokens.size(), static_cast<size_t>(size));
    ASSERT_EQ(vocabulary->types.size(), static_cast<size_t>(size));
    EXPECT_EQ(std::set<std::string>(vocabulary->tokens.begin(),
                                    vocabulary->tokens.end())
                  .size(),
              vocabulary->tokens.size());
    const Bytes file = TokenizerFile(*vocabulary);
    const auto reader = GgufReader::FromBytes(file);
    ASSERT_TRUE(reader.ok()) << reader.status();
    const auto tokenizer = Tokenizer::FromGguf(**reader, size);
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    EXPECT_EQ((*tokenizer)->bos_id(), vocabulary->bos_id);
    EXPECT_EQ((*tokenizer)->end_ids().size(), 2u);
    for (const std::string& text : texts) {
      const auto ids = (*tokenizer)->Encode(text, {false, false});
      ASSERT_TRUE(ids.ok()) << ids.status();
      EXPECT_EQ((*tokenizer)->Decode(*ids, true), text) << size;
    }
  }
}

TEST(SyntheticVocabulary, MergesShortenEnglish) {
  const auto vocabulary = MakeSyntheticVocabulary(4352);
  ASSERT_TRUE(vocabulary.ok());
  const Bytes file = TokenizerFile(*vocabulary);
  const auto reader = GgufReader::FromBytes(file);
  const auto tokenizer = Tokenizer::FromGguf(**reader, 4352);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  const std::string text = " the and that for";
  const auto ids = (*tokenizer)->Encode(text, {false, false});
  ASSERT_TRUE(ids.ok());
  EXPECT_EQ(ids->size(), 4u);
  // Made-up words are tokens.
  EXPECT_EQ((*tokenizer)->Encode(" bababa", {false, false})->size(), 1u);
}

TEST(SyntheticVocabulary, SizesThatCannotBeAreRefused) {
  for (int size : {-1, 0, kSyntheticVocabularyMin - 1, 5'000'000}) {
    EXPECT_TRUE(absl::IsInvalidArgument(MakeSyntheticVocabulary(size).status()))
        << size;
  }
}

}  // namespace
}  // namespace tern
