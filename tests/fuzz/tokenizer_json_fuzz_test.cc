#include "tests/fuzz/tokenizer_json_fuzz.h"

#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace tern {
namespace {

using nlohmann::json;

constexpr const char* kSound[] = {"characters", "metaspace", "bytes",
                                  "patterns"};
constexpr const char* kUnsound[] = {
    "id_twice", "merge_unknown", "id_huge", "merge_of_nothing", "decoder_grows",
    "deep",     "empty",         "cut",     "key_twice",        "not_utf8"};

std::string Read(const std::string& name) {
  std::ifstream in("tests/fuzz/corpus/tokenizer_json/" + name,
                   std::ios::binary);
  EXPECT_TRUE(in.good()) << name;
  return std::string((std::istreambuf_iterator<char>(in)),
                     std::istreambuf_iterator<char>());
}

bool Exercise(absl::string_view text) {
  return ExerciseTokenizerJson(absl::MakeConstSpan(
      reinterpret_cast<const uint8_t*>(text.data()), text.size()));
}

TEST(TokenizerJsonFuzz, OnlySoundFilesComeThrough) {
  for (const char* name : kSound) EXPECT_TRUE(Exercise(Read(name))) << name;
  for (const char* name : kUnsound) EXPECT_FALSE(Exercise(Read(name))) << name;
}

TEST(TokenizerJsonFuzz, SurvivesMutationsOfTheText) {
  for (int round = 0; round < 6000; ++round) {
    std::mt19937 rng(round);
    std::string text = Read(kSound[rng() % std::size(kSound)]);
    for (int n = 1 + rng() % 3; n > 0; --n) {
      const size_t at = rng() % text.size();
      switch (rng() % 4) {
        case 0:
          text[at] = static_cast<char>(rng());
          break;
        case 1:
          text.erase(at, 1 + rng() % 8);
          break;
        case 2:
          text.insert(at, text.substr(rng() % text.size(), rng() % 16));
          break;
        case 3:
          text[at] = "0123456789[]{}\",:\\e-"[rng() % 20];
          break;
      }
      if (text.empty()) text = "x";
    }
    Exercise(text);
  }
}

// All values of a document.
void Collect(json* value, std::vector<json*>* all) {
  all->push_back(value);
  if (!value->is_structured()) return;
  for (json& child : *value) Collect(&child, all);
}

// Values of the wrong kind, or from another place, where text mutations would
// mostly give what is no JSON.
TEST(TokenizerJsonFuzz, SurvivesValuesInWrongPlaces) {
  std::vector<json> documents;
  for (const char* name : kSound) {
    const std::string text = Read(name);
    documents.push_back(json::parse(text.substr(0, text.find('\0'))));
  }
  const json odd[] = {nullptr,
                      true,
                      0,
                      -1,
                      299,
                      300,
                      1e300,
                      uint64_t{1} << 63,
                      "",
                      "a",
                      "▁",
                      "\n",
                      "(a*)*$",
                      "[^",
                      "Sequence",
                      "Split",
                      json::array(),
                      json::object()};
  int n_accepted = 0;
  for (int round = 0; round < 6000; ++round) {
    std::mt19937 rng(round);
    json document = documents[rng() % documents.size()];
    for (int n = 1 + rng() % 3; n > 0; --n) {
      std::vector<json*> all;
      // Most values are those of the vocabulary; half of the time elsewhere.
      json* root = &document;
      if (rng() % 2 == 0 && document.is_object() && !document.empty()) {
        auto part = document.begin();
        std::advance(part, rng() % document.size());
        root = &*part;
      }
      Collect(root, &all);
      json* const value = all[rng() % all.size()];
      *value = rng() % 3 == 0 ? json(*all[rng() % all.size()])
                              : odd[rng() % std::size(odd)];
    }
    n_accepted += Exercise(document.dump());
  }
  // They do not all fail at the gate.
  EXPECT_GT(n_accepted, 100);
}

}  // namespace
}  // namespace tern
