#include "model/manifest.h"

#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "gtest/gtest.h"
#include "util/sha256.h"

namespace tern {
namespace {

// A header of 3 bytes, and a tensor of one block and one byte more.
Manifest Example() {
  const Sha256Digest hash = Sha256("abc", 3);
  Manifest manifest;
  manifest.files.push_back(
      {"model.gguf",
       5000000,
       {{"", 0, 3, {hash}},
        {"blk.0 \"q\"\n", 32, kManifestBlockBytes + 1, {hash, hash}}}});
  manifest.files.push_back({"empty.json", 0, {}});
  return manifest;
}

// By hand; see docs/wire_protocol.md.
std::string ExampleText() {
  const std::string hash =
      "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\n";
  return absl::StrCat(
      "tern-manifest 1\nblock_bytes 4194304\nfile 5000000 model.gguf\n"
      "part 0 3 \n",
      hash, "part 32 4194305 blk.0 \\\"q\\\"\\n\n", hash, hash,
      "file 0 empty.json\n");
}

TEST(Manifest, TextIsAsDocumentedAndComesBack) {
  EXPECT_EQ(SerializeManifest(Example()), ExampleText());
  const auto manifest = ParseManifest(ExampleText());
  ASSERT_TRUE(manifest.ok()) << manifest.status();
  EXPECT_EQ(SerializeManifest(*manifest), ExampleText());
  EXPECT_EQ(manifest->files[0].parts[1].name, "blk.0 \"q\"\n");
  EXPECT_EQ(manifest->file_bytes(), 5000000);
  EXPECT_EQ(manifest->part_bytes(), 3 + kManifestBlockBytes + 1);
}

TEST(Manifest, BlocksCoverTheParts) {
  const std::vector<ManifestBlock> blocks = Example().Blocks();
  ASSERT_EQ(blocks.size(), 3u);
  EXPECT_EQ(blocks[0].bytes, 3);
  EXPECT_EQ(blocks[1].offset, 32);
  EXPECT_EQ(blocks[1].bytes, kManifestBlockBytes);
  EXPECT_EQ(blocks[2].offset, 32 + kManifestBlockBytes);
  EXPECT_EQ(blocks[2].bytes, 1);
  EXPECT_EQ(blocks[2].part, 1);
}

TEST(Manifest, RefusesWhatWouldLeaveItsFolderOrItsFile) {
  const auto refused = [](const char* from, const std::string& to) {
    const std::string text = absl::StrReplaceAll(ExampleText(), {{from, to}});
    EXPECT_NE(text, ExampleText());
    return absl::IsInvalidArgument(ParseManifest(text).status());
  };
  EXPECT_TRUE(refused("model.gguf", "../model.gguf"));
  EXPECT_TRUE(refused("model.gguf", ".."));
  EXPECT_TRUE(refused("model.gguf", ""));
  EXPECT_TRUE(refused("model.gguf", "a/b"));
  EXPECT_TRUE(refused("model.gguf", "empty.json"));
  EXPECT_TRUE(refused("5000000", "4194336"));  // The tensor's last byte is out.
  EXPECT_TRUE(refused("part 32", "part 2"));   // It overlaps the header.
  EXPECT_TRUE(refused("part 32", "part -1"));
  EXPECT_TRUE(refused("4194305", "9000000000000"));
  EXPECT_TRUE(refused("part 0 3", "part 0 0"));
  EXPECT_TRUE(refused("part 0 3", "part 00 3"));
  EXPECT_TRUE(refused("block_bytes 4194304", "block_bytes 4194303"));
  EXPECT_TRUE(refused("file 0", "file  0"));
}

TEST(Manifest, RefusesAnythingCutOff) {
  const std::string text = ExampleText();
  // Without the last line it is another manifest.
  const size_t last_line = text.rfind("file 0");
  for (size_t n = 0; n < text.size(); ++n) {
    if (n == last_line || n == text.find("part 0") ||
        n == text.find("part 32")) {
      continue;
    }
    EXPECT_FALSE(ParseManifest(text.substr(0, n)).ok()) << n;
  }
}

TEST(Manifest, LaterVersionsAreSaidToBeLater) {
  const std::string text =
      absl::StrReplaceAll(ExampleText(), {{"manifest 1", "manifest 2"}});
  EXPECT_TRUE(absl::IsUnimplemented(ParseManifest(text).status()));
}

TEST(Manifest, ContentIdIsTheHashOfTheText) {
  EXPECT_EQ(ContentIdOf("abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_TRUE(IsContentId(ContentIdOf("")));
  EXPECT_FALSE(IsContentId("../../etc/passwd"));
}

}  // namespace
}  // namespace tern
