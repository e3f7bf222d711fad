#include "model/piece_encoder.h"

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "gtest/gtest.h"
#include "model/spm_merges.h"

namespace tern {
namespace {

using Ids = std::vector<int32_t>;

Ids Encode(const PieceEncoder& encoder, absl::string_view piece) {
  PieceEncoder::Scratch scratch;
  Ids ids;
  EXPECT_TRUE(encoder.Encode(piece, &scratch, &ids));
  return ids;
}

// Tokens of ids 0, 1, 2... and the unknown token 99.
PieceEncoder Characters(const std::vector<absl::string_view>& tokens,
                        PieceEncoder::Options options = {}) {
  options.is_byte_level = false;
  PieceEncoder encoder(options);
  std::vector<ScoredToken> scored;
  int32_t id = 0;
  for (absl::string_view token : tokens) {
    EXPECT_TRUE(encoder.AddToken(token, id));
    scored.push_back({token, id, static_cast<float>(-id)});
    ++id;
  }
  encoder.SetUnknownToken(99);
  AddSpmMerges(scored, &encoder);
  encoder.Finish();
  return encoder;
}

TEST(PieceEncoder, MergesCharactersThatAreNoTokens) {
  const PieceEncoder encoder = Characters({"éa", "éab", "a"});
  EXPECT_EQ(Encode(encoder, "éab"), Ids({1}));
  EXPECT_EQ(Encode(encoder, "aéa"), Ids({2, 0}));
  EXPECT_EQ(Encode(encoder, "aé"), Ids({2, 99}));
}

TEST(PieceEncoder, FusesUnknownNeighboursIfTold) {
  PieceEncoder::Options apart;
  apart.fuses_unknown = false;
  EXPECT_EQ(Encode(Characters({"a"}), "xya日"), Ids({99, 0, 99}));
  EXPECT_EQ(Encode(Characters({"a"}, apart), "xya日"), Ids({99, 99, 0, 99}));
}

// No merge makes "abc": "bc" is no token and neither are "ab" and "b c".
TEST(PieceEncoder, TakesAWholePieceOnlyWhereMergesDo) {
  PieceEncoder::Options whole;
  whole.ignores_merges = true;
  EXPECT_EQ(Encode(Characters({"abcd", "a", "b", "c", "d"}), "abcd"),
            Ids({1, 2, 3, 4}));
  EXPECT_EQ(Encode(Characters({"abcd", "a", "b", "c", "d"}, whole), "abcd"),
            Ids({0}));
}

TEST(PieceEncoder, KeepsTheFirstTokenOfEqualOnes) {
  PieceEncoder encoder({/*is_byte_level=*/false});
  EXPECT_TRUE(encoder.AddToken("a", 5));
  EXPECT_FALSE(encoder.AddToken("a", 6));
  EXPECT_EQ(encoder.Find("a"), 5);
  EXPECT_EQ(encoder.Find("b"), -1);
  PieceEncoder::Symbol symbol;
  EXPECT_TRUE(encoder.FindSymbol("é", &symbol));
  EXPECT_FALSE(encoder.FindSymbol("éa", &symbol));
  EXPECT_FALSE(encoder.FindSymbol("", &symbol));
}

TEST(PieceEncoder, KnowsWhichBytesItNeeds) {
  PieceEncoder encoder({/*is_byte_level=*/true});
  std::string bytes;
  for (int byte = 0; byte < 256; ++byte) bytes += static_cast<char>(byte);
  EXPECT_EQ(encoder.FirstByteWithoutToken(), '\t');
  for (int byte = 0; byte < 256; ++byte) {
    if (byte != 3 && byte != 0xff && byte != 'A') {
      encoder.AddToken(absl::string_view(bytes).substr(byte, 1), byte);
    }
  }
  EXPECT_EQ(encoder.FirstByteWithoutToken(), 'A');
  encoder.AddToken("A", 'A');
  EXPECT_EQ(encoder.FirstByteWithoutToken(), -1);
  encoder.Finish();
  EXPECT_EQ(Encode(encoder, "A\n"), Ids({'A', '\n'}));
  PieceEncoder::Scratch scratch;
  Ids ids;
  EXPECT_FALSE(encoder.Encode("A\x03", &scratch, &ids));
}

}  // namespace
}  // namespace tern
