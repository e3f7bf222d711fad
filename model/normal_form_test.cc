#include "model/normal_form.h"

#include "absl/strings/string_view.h"
#include "gtest/gtest.h"

namespace tern {
namespace {

constexpr size_t kNone = absl::string_view::npos;

TEST(FindMaybeNotComposed, PassesWhatIsComposed) {
  for (const char* text :
       {"", "plain", "Grüße, Ωμέγα, Привет", "日本語テスト が", "한국어",
        "😀 👨\u200d👩", "العربية", "שלום", "ภาษาไทย ที่", "हिन्दी", "1½²",
        "\ufe0f\u20e3"}) {
    EXPECT_EQ(FindMaybeNotComposed(text), kNone) << text;
  }
}

TEST(FindMaybeNotComposed, FindsWhatMayNotBe) {
  EXPECT_EQ(FindMaybeNotComposed("ae\u0301"), 2u);      // may join
  EXPECT_EQ(FindMaybeNotComposed("x\u212b"), 1u);       // the Angstrom sign
  EXPECT_EQ(FindMaybeNotComposed("\u1100\u1161"), 3u);  // a syllable in parts
  EXPECT_EQ(FindMaybeNotComposed("か\u3099"), 3u);      // a voicing mark
  EXPECT_EQ(FindMaybeNotComposed("\uf900"), 0u);        // a compatibility form
  EXPECT_EQ(FindMaybeNotComposed("\U0002fa1d"), 0u);    // the last of these
}

TEST(FindMaybeNotComposed, WantsMarksInTheirOrder) {
  // Below (220) before above (230), as the form has it, and the reverse.
  EXPECT_EQ(FindMaybeNotComposed("a\u0316\u033d"), kNone);
  EXPECT_EQ(FindMaybeNotComposed("a\u033d\u0316"), 3u);
  EXPECT_EQ(FindMaybeNotComposed("a\u033db\u0316"), kNone);
}

}  // namespace
}  // namespace tern
