#include "tests/fuzz/safetensors_fuzz.h"

#include <cstdlib>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/fuzz/mutations.h"
#include "tests/fuzz/safetensors_seeds.h"
#include "tests/testing/gguf_builder.h"

namespace tern {
namespace {

using testing::Bytes;

bool IsSound(const SafetensorsSeed& seed) {
  return seed.name.rfind("model_", 0) == 0;
}

// With TERN_WRITE_CORPUS=<folder> in the environment the seeds are written
// there, for a change of seeds to be committed.
TEST(SafetensorsFuzz, TheCommittedCorpusIsThatOfTheBuilder) {
  const char* write_to = std::getenv("TERN_WRITE_CORPUS");
  for (const SafetensorsSeed& seed : SafetensorsSeeds()) {
    if (write_to != nullptr) {
      std::ofstream out(std::string(write_to) + "/" + seed.name,
                        std::ios::binary);
      out.write(reinterpret_cast<const char*>(seed.bytes.data()),
                seed.bytes.size());
      ASSERT_TRUE(out.good()) << seed.name;
      continue;
    }
    std::ifstream in("tests/fuzz/corpus/safetensors/" + seed.name,
                     std::ios::binary);
    ASSERT_TRUE(in.good()) << seed.name;
    const Bytes file((std::istreambuf_iterator<char>(in)),
                     std::istreambuf_iterator<char>());
    EXPECT_EQ(file, seed.bytes) << seed.name;
  }
}

TEST(SafetensorsFuzz, OnlySoundModelsComeThrough) {
  for (const SafetensorsSeed& seed : SafetensorsSeeds()) {
    const SafetensorsDepth depth = ExerciseSafetensors(seed.bytes);
    if (IsSound(seed)) {
      EXPECT_EQ(depth, SafetensorsDepth::kComplete) << seed.name;
      EXPECT_LT(seed.bytes.size(), 20000u) << seed.name;
    } else {
      EXPECT_NE(depth, SafetensorsDepth::kComplete) << seed.name;
    }
  }
}

// The same mutations every time; a sanitizer build looks closer.
TEST(SafetensorsFuzz, SurvivesMutations) {
  const std::vector<SafetensorsSeed> seeds = SafetensorsSeeds();
  int count[4] = {};
  for (int round = 0; round < 20000; ++round) {
    std::mt19937 rng(round);
    // Half of the time a whole model: mutations that it survives reach far.
    const SafetensorsSeed& seed =
        seeds[round % 2 == 0 ? rng() % 3 : rng() % seeds.size()];
    const Bytes bytes = Mutated(seed.bytes, &rng);
    ++count[static_cast<int>(ExerciseSafetensors(bytes))];
  }
  // They go everywhere.
  for (int depth = 0; depth < 4; ++depth) EXPECT_GT(count[depth], 100) << depth;
}

}  // namespace
}  // namespace tern
