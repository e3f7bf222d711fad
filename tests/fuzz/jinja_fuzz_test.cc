#include "tests/fuzz/jinja_fuzz.h"

#include <dirent.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"

namespace tern {
namespace {

constexpr char kCorpus[] = "tests/fuzz/corpus/jinja/";

// Names and contents, sorted.
std::vector<std::pair<std::string, std::string>> Corpus() {
  std::vector<std::pair<std::string, std::string>> files;
  DIR* dir = opendir(kCorpus);
  if (dir == nullptr) return files;
  while (const dirent* entry = readdir(dir)) {
    const std::string name = entry->d_name;
    if (name[0] == '.') continue;
    std::ifstream in(kCorpus + name, std::ios::binary);
    files.emplace_back(name, std::string((std::istreambuf_iterator<char>(in)),
                                         std::istreambuf_iterator<char>()));
  }
  closedir(dir);
  std::sort(files.begin(), files.end());
  return files;
}

TEST(JinjaFuzz, TheCorpusEndsAsItsNamesSay) {
  int count[3] = {};
  for (const auto& [name, source] : Corpus()) {
    const JinjaDepth depth = ExerciseJinja(source);
    const JinjaDepth expected =
        name.rfind("ok_", 0) == 0      ? JinjaDepth::kRendered
        : name.rfind("fails_", 0) == 0 ? JinjaDepth::kParsed
                                       : JinjaDepth::kRefused;
    EXPECT_EQ(depth, expected) << name;
    ++count[static_cast<int>(depth)];
  }
  EXPECT_GE(count[0], 5);
  EXPECT_GE(count[1], 8);
  EXPECT_GE(count[2], 15);
}

// Words that mean something, so that soup parses now and then.
const char* const kWords[] = {"{{",
                              "}}",
                              "{%",
                              "%}",
                              "{%-",
                              "-%}",
                              "{#",
                              "#}",
                              " if ",
                              " else ",
                              "elif ",
                              "endif",
                              "for ",
                              " in ",
                              "endfor",
                              "set ",
                              "endset",
                              "macro ",
                              "endmacro",
                              "not ",
                              " and ",
                              " or ",
                              " is ",
                              "defined",
                              "messages",
                              "loop",
                              ".index",
                              ".role",
                              ".content",
                              "t",
                              "n",
                              "i",
                              "x",
                              "ns",
                              "namespace(x=1)",
                              "=",
                              "==",
                              "<",
                              "+",
                              "-",
                              "*",
                              "//",
                              "%",
                              "~",
                              "|",
                              ".",
                              ",",
                              ":",
                              "(",
                              ")",
                              "[",
                              "]",
                              "{",
                              "}",
                              "'a'",
                              "\"<|\"",
                              "1",
                              "0",
                              "-1",
                              "2.5",
                              "true",
                              "none",
                              "trim",
                              "upper",
                              "length",
                              "join",
                              "replace('a', t)",
                              "tojson",
                              "list",
                              "first",
                              "split()",
                              "strip()",
                              "items()",
                              "range(9)",
                              "raise_exception('e')",
                              "break",
                              "continue",
                              " ",
                              "\n",
                              "é",
                              "\\",
                              "raw",
                              "endraw",
                              "reverse",
                              "[::-1]",
                              "[1:]",
                              "x|map('upper')"};

TEST(JinjaFuzz, SurvivesTokenSoup) {
  int count[3] = {};
  for (int round = 0; round < 20000; ++round) {
    std::mt19937 rng(round);
    std::string source;
    // Half of them in a frame that gives sense a chance.
    const bool is_framed = round % 2 == 0;
    if (is_framed) source = "{% for i in messages %}{{ ";
    for (int n = 1 + rng() % (is_framed ? 6 : 40); n > 0; --n) {
      source += kWords[rng() % std::size(kWords)];
    }
    if (is_framed) source += " }}{% endfor %}";
    ++count[static_cast<int>(ExerciseJinja(source))];
  }
  for (int n : count) EXPECT_GT(n, 100);
}

// Cuts, repeats, moves and overwrites pieces of sound templates.
TEST(JinjaFuzz, SurvivesMutations) {
  const auto corpus = Corpus();
  ASSERT_FALSE(corpus.empty());
  int count[3] = {};
  for (int round = 0; round < 6000; ++round) {
    std::mt19937 rng(round);
    std::string source = corpus[rng() % corpus.size()].second;
    for (int n = 1 + rng() % 3; n > 0 && !source.empty(); --n) {
      const size_t at = rng() % source.size();
      const size_t size = std::min<size_t>(1 + rng() % 12, source.size() - at);
      switch (rng() % 4) {
        case 0:
          source.erase(at, size);
          break;
        case 1:
          source.insert(at, kWords[rng() % std::size(kWords)]);
          break;
        case 2:
          source.insert(rng() % source.size(), source.substr(at, size));
          break;
        case 3:
          source[at] = static_cast<char>(rng() % 128);
          break;
      }
    }
    ++count[static_cast<int>(ExerciseJinja(source))];
  }
  for (int n : count) EXPECT_GT(n, 100);
}

}  // namespace
}  // namespace tern
