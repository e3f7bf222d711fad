#include "model/named_splits.h"

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "gtest/gtest.h"
#include "model/pretokenizer.h"

namespace tern {
namespace {

using Pieces = std::vector<std::string>;

Pieces Split(absl::string_view name, absl::string_view text) {
  const NamedSplit* const split = FindNamedSplit(name);
  EXPECT_NE(split, nullptr);
  Pretokenizer pretokenizer;
  AddNamedSplit(*split, &pretokenizer);
  EXPECT_TRUE(pretokenizer.is_byte_level());
  Pieces pieces;
  const absl::Status status = pretokenizer.Split(
      text, true, [&](absl::string_view piece) { pieces.emplace_back(piece); });
  EXPECT_TRUE(status.ok()) << status;
  return pieces;
}

TEST(NamedSplits, KnowsTheNames) {
  for (const char* name : {"llama-bpe", "llama3", "llama-v3", "falcon3"}) {
    ASSERT_NE(FindNamedSplit(name), nullptr) << name;
    EXPECT_TRUE(FindNamedSplit(name)->ignores_merges);
    EXPECT_TRUE(FindNamedSplit(name)->adds_bos);
    EXPECT_EQ(Split(name, "IT'S 12345"),
              Pieces({"IT", "'S", " ", "123", "45"}));
  }
  for (const char* name : {"gpt-2", "qwen2", "falcon", "default"}) {
    ASSERT_NE(FindNamedSplit(name), nullptr) << name;
    EXPECT_FALSE(FindNamedSplit(name)->ignores_merges);
    EXPECT_FALSE(FindNamedSplit(name)->adds_bos);
  }
  EXPECT_EQ(FindNamedSplit("falcon_e"), nullptr);
  EXPECT_EQ(FindNamedSplit(""), nullptr);
  EXPECT_EQ(NamedSplitList(),
            "llama-bpe, llama3, llama-v3, falcon3, qwen2, gpt-2, falcon, "
            "default");
}

// Numbers with their space, contractions in small letters alone.
TEST(NamedSplits, Gpt2) {
  EXPECT_EQ(Split("gpt-2", "It's IT'S 12345, (a)\n\n b"),
            Pieces({"It", "'s", " IT", "'", "S", " 12345", ",", " (", "a", ")",
                    "\n\n", " b"}));
  EXPECT_EQ(Split("gpt-2", "a   b\tc  "),
            Pieces({"a", "  ", " b", "\t", "c", "  "}));
  EXPECT_EQ(Split("gpt-2", "\u3000\u3000é"), Pieces({"\u3000", "\u3000", "é"}));
}

// That of Llama 3 with one digit at a time.
TEST(NamedSplits, Qwen2) {
  EXPECT_EQ(
      Split("qwen2", "IT'S 123, (a)\n\nb"),
      Pieces({"IT", "'S", " ", "1", "2", "3", ",", " (", "a", ")\n\n", "b"}));
}

// Signs by themselves, then as GPT-2 does, then digits by three.
TEST(NamedSplits, Falcon) {
  EXPECT_EQ(Split("falcon", "a+b== 12345 'tis (x)"),
            Pieces({"a", "+", "b", "==", " ", "123", "45", " ", "'", "tis", " ",
                    "(", "x", ")"}));
  EXPECT_EQ(Split("falcon", "1234567"), Pieces({"123", "456", "7"}));
}

// Likewise, with numbers apart from the space before them.
TEST(NamedSplits, Default) {
  EXPECT_EQ(Split("default", "a+ 12345"), Pieces({"a", "+", " ", "123", "45"}));
}

}  // namespace
}  // namespace tern
