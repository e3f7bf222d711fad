#include "tests/fuzz/gguf_fuzz.h"

#include <cstdlib>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/fuzz/gguf_seeds.h"
#include "tests/fuzz/mutations.h"
#include "tests/testing/gguf_builder.h"

namespace tern {
namespace {

using testing::Bytes;

std::string CorpusPath(const std::string& name) {
  return "tests/fuzz/corpus/gguf/" + name;
}

// With TERN_WRITE_CORPUS=<folder> in the environment the seeds are written
// there, for a change of seeds to be committed.
TEST(GgufFuzz, TheCommittedCorpusIsThatOfTheBuilder) {
  const char* write_to = std::getenv("TERN_WRITE_CORPUS");
  for (const GgufSeed& seed : GgufSeeds()) {
    if (write_to != nullptr) {
      std::ofstream out(std::string(write_to) + "/" + seed.name,
                        std::ios::binary);
      out.write(reinterpret_cast<const char*>(seed.bytes.data()),
                seed.bytes.size());
      ASSERT_TRUE(out.good()) << seed.name;
      continue;
    }
    std::ifstream in(CorpusPath(seed.name), std::ios::binary);
    ASSERT_TRUE(in.good()) << seed.name;
    const Bytes file((std::istreambuf_iterator<char>(in)),
                     std::istreambuf_iterator<char>());
    EXPECT_EQ(file, seed.bytes) << seed.name;
  }
}

TEST(GgufFuzz, OnlySoundFilesComeThrough) {
  for (const GgufSeed& seed : GgufSeeds()) {
    const GgufDepth depth = ExerciseGguf(seed.bytes);
    if (seed.name == "model" || seed.name == "name_is_special") {
      EXPECT_EQ(depth, GgufDepth::kComplete) << seed.name;
      EXPECT_LT(seed.bytes.size(), 20000u);
    } else {
      EXPECT_NE(depth, GgufDepth::kComplete) << seed.name;
    }
  }
}

// The same mutations every time; a sanitizer build looks closer.
TEST(GgufFuzz, SurvivesMutations) {
  const std::vector<GgufSeed> seeds = GgufSeeds();
  int count[4] = {};
  for (int round = 0; round < 20000; ++round) {
    std::mt19937 rng(round);
    // Half of the time the whole model: mutations that it survives reach far.
    const GgufSeed& seed =
        round % 2 == 0 ? seeds[0] : seeds[rng() % seeds.size()];
    const Bytes bytes = Mutated(seed.bytes, &rng);
    ++count[static_cast<int>(ExerciseGguf(bytes))];
  }
  // They go everywhere.
  for (int depth = 0; depth < 4; ++depth) EXPECT_GT(count[depth], 500) << depth;
}

}  // namespace
}  // namespace tern
