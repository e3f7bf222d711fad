#include "util/sha256.h"

#include <string>

#include "gtest/gtest.h"

namespace tern {
namespace {

// The examples of FIPS 180-2, appendix B.
constexpr char kOfAbc[] =
    "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
constexpr char kOfMillionA[] =
    "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0";

TEST(Sha256, IsThatOfTheStandard) {
  EXPECT_EQ(Sha256Text(Sha256("abc", 3)), kOfAbc);
  EXPECT_EQ(Sha256Text(Sha256("", 0)),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

TEST(Sha256, PiecesGiveTheSameAsTheWholeAndAStreamCanBeUsedAgain) {
  Sha256Stream stream;
  const std::string piece(1000, 'a');
  for (int i = 0; i < 1000; ++i) stream.Add(piece.data(), piece.size());
  EXPECT_EQ(Sha256Text(stream.Finish()), kOfMillionA);
  stream.Add("a", 1);
  stream.Add("bc", 2);
  EXPECT_EQ(Sha256Text(stream.Finish()), kOfAbc);
}

TEST(Sha256, TextComesBackAndNothingElseIsTaken) {
  Sha256Digest digest;
  ASSERT_TRUE(ParseSha256(kOfAbc, &digest));
  EXPECT_EQ(digest, Sha256("abc", 3));
  std::string text = kOfAbc;
  EXPECT_FALSE(ParseSha256(text.substr(1), &digest));
  text[5] = 'G';
  EXPECT_FALSE(ParseSha256(text, &digest));
  text[5] = 'F';  // Capitals would give one digest two names.
  EXPECT_FALSE(ParseSha256(text, &digest));
}

}  // namespace
}  // namespace tern
