#include "tests/fuzz/gguf_fuzz.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/fuzz/gguf_seeds.h"
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

// Flips, overwrites, cuts, repeats and moves bytes, a few at a time, and puts
// in numbers that break arithmetic.
Bytes Mutated(Bytes bytes, std::mt19937* rng) {
  static const uint64_t kNumbers[] = {0,
                                      1,
                                      31,
                                      33,
                                      0x7f,
                                      0xff,
                                      0xffff,
                                      0x7fffffff,
                                      0x80000000,
                                      0xffffffff,
                                      uint64_t{1} << 48,
                                      uint64_t{1} << 62,
                                      ~uint64_t{0} >> 1,
                                      ~uint64_t{0} - 31,
                                      ~uint64_t{0}};
  for (int n = 1 + (*rng)() % 4; n > 0 && !bytes.empty(); --n) {
    // Most of the sense is in front.
    const size_t reach =
        (*rng)() % 2 == 0 ? bytes.size() : std::min<size_t>(bytes.size(), 600);
    const size_t at = (*rng)() % reach;
    const size_t left = bytes.size() - at;
    switch ((*rng)() % 6) {
      case 0:
        bytes[at] ^= 1 << (*rng)() % 8;
        break;
      case 1:
        bytes[at] = (*rng)();
        break;
      case 2: {
        const uint64_t number = kNumbers[(*rng)() % std::size(kNumbers)];
        const size_t width = (*rng)() % 2 == 0 ? 4 : 8;
        std::memcpy(bytes.data() + at, &number, std::min(width, left));
        break;
      }
      case 3:
        bytes.erase(
            bytes.begin() + at,
            bytes.begin() + at + std::min<size_t>(left, 1 + (*rng)() % 8));
        break;
      case 4:
        bytes.insert(bytes.begin() + at, 1 + (*rng)() % 8, (*rng)());
        break;
      case 5: {
        const size_t from = (*rng)() % bytes.size();
        const size_t size =
            std::min({left, bytes.size() - from, size_t{1} + (*rng)() % 16});
        std::memmove(bytes.data() + at, bytes.data() + from, size);
        break;
      }
    }
  }
  if ((*rng)() % 16 == 0) bytes.resize((*rng)() % (bytes.size() + 1));
  return bytes;
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
