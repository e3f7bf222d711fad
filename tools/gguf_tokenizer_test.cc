#include "tools/gguf_tokenizer.h"

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "gtest/gtest.h"
#include "model/gguf_reader.h"
#include "model/gguf_writer.h"
#include "model/model_source.h"
#include "model/tokenizer.h"
#include "nlohmann/json.hpp"

namespace tern {
namespace {

using nlohmann::json;

constexpr char kLlama3Pattern[] =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|)"
    R"( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr char kQwen2Pattern[] =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|)"
    R"( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

json AddedToken(int id, const std::string& content, bool special) {
  return {{"id", id},        {"content", content},  {"lstrip", false},
          {"rstrip", false}, {"normalized", false}, {"special", special}};
}

json ByteLevel(bool use_regex) {
  return {{"type", "ByteLevel"},
          {"add_prefix_space", false},
          {"use_regex", use_regex}};
}

json Split(const std::string& pattern) {
  return {{"type", "Split"},
          {"pattern", {{"Regex", pattern}}},
          {"behavior", "Isolated"},
          {"invert", false}};
}

json Sequence(const json& steps) {
  return {{"type", "Sequence"}, {"pretokenizers", steps}};
}

// The demo model's file, and its tokenizer as tokenizer.json would have it.
class DemoTokenizer {
 public:
  DemoTokenizer() {
    auto file = GgufReader::Open("models/demo/shakespeare-demo-i2_s.gguf");
    EXPECT_TRUE(file.ok()) << file.status();
    file_ = *std::move(file);
    const auto tokens = *file_->GetStringArray("tokenizer.ggml.tokens");
    const auto types = *file_->GetIntArray("tokenizer.ggml.token_type");
    json vocab = json::object(), added = json::array(), merges = json::array();
    for (size_t id = 0; id < tokens.size(); ++id) {
      if (types[id] == 1) {
        vocab[std::string(tokens[id])] = id;
      } else {
        added.push_back(AddedToken(static_cast<int>(id),
                                   std::string(tokens[id]), types[id] == 3));
      }
    }
    const auto list = *file_->GetStringArray("tokenizer.ggml.merges");
    for (absl::string_view merge : list) {
      merges.push_back(std::string(merge));
    }
    const auto name = [&](const char* key) {
      return std::string(tokens[*file_->GetInt(key)]);
    };
    document = {
        {"added_tokens", added},
        {"pre_tokenizer", Sequence({Split(kLlama3Pattern), ByteLevel(false)})},
        {"decoder", ByteLevel(true)},
        {"model",
         {{"type", "BPE"},
          {"ignore_merges", true},
          {"vocab", vocab},
          {"merges", merges}}}};
    config = {{"bos_token", name("tokenizer.ggml.bos_token_id")},
              {"eos_token", name("tokenizer.ggml.eos_token_id")},
              {"add_bos_token", true}};
  }

  const GgufReader& file() const { return *file_; }

  json document;
  json config;

 private:
  std::unique_ptr<GgufReader> file_;
};

// Merges over characters, with the normalizer of Llama 2.
json SpmLike() {
  json vocab = {{"<unk>", 0}, {"<s>", 1}, {"</s>", 2}};
  for (int byte = 0; byte < 256; ++byte) {
    static constexpr char kDigits[] = "0123456789ABCDEF";
    const std::string name = {
        '<', '0', 'x', kDigits[byte >> 4], kDigits[byte & 15], '>'};
    vocab[name] = 3 + byte;
  }
  int id = 259;
  for (const char* token :
       {"▁", "t", "h", "e", "a", "he", "▁t", "▁the", "▁▁", "aa", "aaa"}) {
    vocab[token] = id++;
  }
  return {
      {"added_tokens",
       {AddedToken(0, "<unk>", true), AddedToken(1, "<s>", true),
        AddedToken(2, "</s>", true)}},
      {"normalizer",
       {{"type", "Sequence"},
        {"normalizers",
         {{{"type", "Prepend"}, {"prepend", "▁"}},
          {{"type", "Replace"},
           {"pattern", {{"String", " "}}},
           {"content", "▁"}}}}}},
      {"decoder",
       {{"type", "Sequence"},
        {"decoders",
         {{{"type", "Replace"},
           {"pattern", {{"String", "▁"}}},
           {"content", " "}},
          {{"type", "ByteFallback"}},
          {{"type", "Fuse"}},
          {{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}}}}}},
      {"model",
       {{"type", "BPE"},
        {"unk_token", "<unk>"},
        {"fuse_unk", true},
        {"byte_fallback", true},
        {"vocab", vocab},
        {"merges", {"h e", "▁ t", "▁t he", "▁ ▁", "a a", "aa a", "a aa"}}}}};
}

constexpr int kSpmVocab = 270;

// What was written, as a reader sees it.
struct Written {
  absl::Status status;
  std::string bytes;
  std::unique_ptr<GgufReader> file;
};

Written Write(const json& document, const json& config, int vocab_size) {
  Written written;
  GgufHeader header;
  written.status =
      SetTokenizerKeys({document.dump(), config.is_null() ? "" : config.dump()},
                       vocab_size, &header);
  written.bytes = header.Serialize();
  auto file = GgufReader::FromBytes(
      {reinterpret_cast<const uint8_t*>(written.bytes.data()),
       written.bytes.size()});
  EXPECT_TRUE(file.ok()) << file.status();
  written.file = *std::move(file);
  return written;
}

TEST(SetTokenizerKeys, ByteLevelIsWhatItWasBefore) {
  const DemoTokenizer demo;
  const Written written = Write(demo.document, demo.config, 1024);
  ASSERT_TRUE(written.status.ok()) << written.status;
  for (const char* key : {"tokenizer.ggml.tokens", "tokenizer.ggml.merges"}) {
    EXPECT_EQ(*written.file->GetStringArray(key),
              *demo.file().GetStringArray(key));
  }
  EXPECT_EQ(*written.file->GetIntArray("tokenizer.ggml.token_type"),
            *demo.file().GetIntArray("tokenizer.ggml.token_type"));
  EXPECT_EQ(*written.file->GetString("tokenizer.ggml.pre"), "llama-bpe");
  const auto a = Tokenizer::FromGguf(*written.file, 1024);
  const auto b = Tokenizer::FromGguf(demo.file(), 1024);
  ASSERT_TRUE(a.ok() && b.ok()) << a.status() << b.status();
  EXPECT_TRUE(CompareTokenizers(**a, **b, std::vector<bool>(1024)).ok());
}

TEST(SetTokenizerKeys, NamesTheSplitsThatHaveNames) {
  DemoTokenizer demo;
  json& merges_ignored = demo.document["model"]["ignore_merges"];
  const auto pre = [&] {
    const Written written = Write(demo.document, demo.config, 1024);
    EXPECT_TRUE(written.status.ok()) << written.status;
    return written.status.ok()
               ? std::string(*written.file->GetString("tokenizer.ggml.pre"))
               : "";
  };
  merges_ignored = false;
  demo.document["pre_tokenizer"] =
      Sequence({Split(kQwen2Pattern), ByteLevel(false)});
  EXPECT_EQ(pre(), "qwen2");
  demo.document["pre_tokenizer"] = ByteLevel(true);
  EXPECT_EQ(pre(), "gpt-2");
}

TEST(SetTokenizerKeys, RowsWithoutATokenAreUnused) {
  const DemoTokenizer demo;
  const Written written = Write(demo.document, demo.config, 1026);
  ASSERT_TRUE(written.status.ok()) << written.status;
  EXPECT_EQ((*written.file->GetStringArray("tokenizer.ggml.tokens"))[1025],
            "[PAD1025]");
  EXPECT_EQ((*written.file->GetIntArray("tokenizer.ggml.token_type"))[1025], 5);
}

TEST(SetTokenizerKeys, SentencePieceGetsScoresInTheOrderOfMerges) {
  const Written written = Write(
      SpmLike(), {{"bos_token", "<s>"}, {"eos_token", "</s>"}}, kSpmVocab);
  ASSERT_TRUE(written.status.ok()) << written.status;
  EXPECT_EQ(*written.file->GetString("tokenizer.ggml.model"), "llama");
  EXPECT_TRUE(*written.file->GetBool("tokenizer.ggml.add_space_prefix"));
  EXPECT_FALSE(*written.file->GetBool("tokenizer.ggml.add_bos_token"));
  EXPECT_EQ(*written.file->GetInt("tokenizer.ggml.bos_token_id"), 1);
  EXPECT_EQ(*written.file->GetInt("tokenizer.ggml.eos_token_id"), 2);
  const auto types = *written.file->GetIntArray("tokenizer.ggml.token_type");
  EXPECT_EQ(types[2], 3);
  EXPECT_EQ(types[3], 6);
  EXPECT_EQ(types[259], 1);
  const auto tokenizer = Tokenizer::FromGguf(*written.file, kSpmVocab);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  // "▁the" "▁▁" "he", worked by hand.
  EXPECT_EQ(*(*tokenizer)->Encode("the  he", {}),
            (std::vector<TokenId>{266, 267, 264}));
}

TEST(SetTokenizerKeys, SpacesMayBeMarkedWithoutAPrefix) {
  json document = SpmLike();
  // No prefix to drop from what is decoded.
  document["decoder"]["decoders"].erase(3);
  document["normalizer"]["normalizers"].erase(0);
  const Written replaced = Write(document, nullptr, kSpmVocab);
  ASSERT_TRUE(replaced.status.ok()) << replaced.status;
  EXPECT_FALSE(*replaced.file->GetBool("tokenizer.ggml.add_space_prefix"));
  document["normalizer"] = nullptr;
  document["pre_tokenizer"] = {
      {"type", "Metaspace"}, {"prepend_scheme", "never"}, {"split", false}};
  const Written marked = Write(document, nullptr, kSpmVocab);
  ASSERT_TRUE(marked.status.ok()) << marked.status;
  EXPECT_EQ(marked.bytes, replaced.bytes);
}

// As Llama 2's tokenizer.json has them, whose tokens of three spaces and more
// have one score: by the length of the halves, tokens mixed.
TEST(SetTokenizerKeys, RunsOfSpacesMayBeMixed) {
  json document = SpmLike();
  document["model"]["vocab"]["▁▁▁"] = 270;
  document["model"]["vocab"]["▁▁▁▁"] = 271;
  for (const char* merge : {"▁▁▁ ▁", "▁▁ ▁▁", "▁▁ ▁", "▁ ▁▁▁", "▁ ▁▁"}) {
    document["model"]["merges"].push_back(merge);
  }
  const Written written = Write(document, nullptr, 272);
  ASSERT_TRUE(written.status.ok()) << written.status;
  const auto tokenizer = Tokenizer::FromGguf(*written.file, 272);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  // A prefix and six spaces: 4 and 3.
  EXPECT_EQ(*(*tokenizer)->Encode("      a", {}),
            (std::vector<TokenId>{271, 270, 263}));
}

struct Refusal {
  std::function<void(json*)> change;
  absl::string_view message;
};

TEST(SetTokenizerKeys, RefusesWhatSentencePieceDoesNotDo) {
  const std::vector<Refusal> refusals = {
      {[](json* j) { (*j)["model"]["merges"].erase(2); },
       "'▁t' and 'he' do not merge"},
      // A token's merges on both sides of another's.
      {[](json* j) {
         (*j)["model"]["merges"] = {"h e",  "▁ t", "▁t he", "a a",
                                    "aa a", "▁ ▁", "a aa"};
       },
       "are mixed"},
      {[](json* j) {
         (*j)["normalizer"] = nullptr;
         (*j)["pre_tokenizer"] = {{"type", "Metaspace"}, {"split", false}};
       },
       "not those of SentencePiece's BPE"},
      {[](json* j) {
         (*j)["normalizer"]["normalizers"].push_back({{"type", "NFC"}});
       },
       "not those of SentencePiece's BPE"},
      {[](json* j) {
         (*j)["pre_tokenizer"] = {{"type", "Digits"}};
       },
       "not those of SentencePiece's BPE"},
      {[](json* j) { (*j)["added_tokens"][2]["lstrip"] = true; }, "has lstrip"},
      // Found in text that is normalized already: no file can say so, and
      // nothing but comparing finds it.
      {[](json* j) {
         json token = AddedToken(270, "h a", false);
         token["normalized"] = true;
         (*j)["added_tokens"].push_back(token);
       },
       "would differ"},
  };
  for (const Refusal& refusal : refusals) {
    json document = SpmLike();
    refusal.change(&document);
    const Written written = Write(document, nullptr, kSpmVocab + 1);
    EXPECT_TRUE(absl::IsUnimplemented(written.status)) << written.status;
    EXPECT_TRUE(absl::StrContains(written.status.message(), refusal.message))
        << written.status;
    EXPECT_TRUE(absl::StrContains(written.status.message(),
                                  "serve the directory as it is"))
        << written.status;
    EXPECT_TRUE(written.file->keys().empty());
  }
}

TEST(SetTokenizerKeys, RefusesWhatByteLevelBpeDoesNotDo) {
  const std::vector<Refusal> refusals = {
      {[](json* j) {
         (*j)["normalizer"] = {{"type", "NFC"}};
       },
       "normalizes text (NFC)"},
      {[](json* j) { (*j)["model"]["ignore_merges"] = false; },
       "no tokenizer.ggml.pre"},
      {[](json* j) {
         (*j)["pre_tokenizer"]["pretokenizers"][0]["invert"] = true;
       },
       "no tokenizer.ggml.pre"},
      {[](json* j) {
         (*j)["pre_tokenizer"]["pretokenizers"][0]["behavior"] = "Removed";
       },
       "no tokenizer.ggml.pre"},
      {[](json* j) {
         (*j)["pre_tokenizer"]["pretokenizers"][1]["add_prefix_space"] = true;
       },
       "no tokenizer.ggml.pre"},
      {[](json* j) {
         (*j)["pre_tokenizer"]["pretokenizers"].push_back({{"type", "Digits"}});
       },
       "no tokenizer.ggml.pre"},
      // A character that is no byte: only comparing, or reading, finds it.
      {[](json* j) { (*j)["model"]["vocab"]["日本"] = 1024; },
       "does not spell bytes with"},
  };
  for (const Refusal& refusal : refusals) {
    DemoTokenizer demo;
    refusal.change(&demo.document);
    const Written written = Write(demo.document, demo.config, 1025);
    EXPECT_TRUE(absl::IsUnimplemented(written.status)) << written.status;
    EXPECT_TRUE(absl::StrContains(written.status.message(), refusal.message))
        << written.status;
  }
}

TEST(CompareTokenizers, FindsWhatDiffers) {
  const DemoTokenizer demo;
  const auto make = [&](const std::function<void(json*)>& change) {
    json document = demo.document;
    json config = demo.config;
    change(&document);
    auto tokenizer = Tokenizer::FromJson(document.dump(), config.dump(), 1024);
    EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
    return *std::move(tokenizer);
  };
  const std::vector<bool> unused(1024);
  const auto same = make([](json*) {});
  EXPECT_TRUE(CompareTokenizers(*same, *make([](json*) {}), unused).ok());
  const std::vector<std::function<void(json*)>> changes = {
      [](json* j) {
        (*j)["normalizer"] = {{"type", "Strip"}, {"strip_left", true}};
      },
      [](json* j) {
        (*j)["pre_tokenizer"]["pretokenizers"][0] = Split("\\p{L}");
      },
      [](json* j) { (*j)["added_tokens"][0]["special"] = false; },
      [](json* j) { (*j)["added_tokens"][0]["rstrip"] = true; },
  };
  for (const auto& change : changes) {
    EXPECT_TRUE(absl::IsInvalidArgument(
        CompareTokenizers(*same, *make(change), unused)));
  }
}

}  // namespace
}  // namespace tern
