#include "tests/fuzz/gguf_fuzz.h"

#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "gtest/gtest.h"
#include "model/model_source.h"
#include "model/weights.h"
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
    EXPECT_EQ(depth == GgufDepth::kComplete, seed.is_sound) << seed.name;
    EXPECT_LT(seed.bytes.size(), 24000u) << seed.name;
  }
}

// What is wrong with the matrices of a model; OK when nothing is.
absl::Status FirstFault(const Bytes& bytes) {
  const auto source = ModelSource::FromGguf(bytes);
  if (!source.ok()) return source.status();
  auto layer = (*source)->FindLayer(0);
  if (!layer.ok()) return layer.status();
  for (TernaryTensor* t : {&layer->q, &layer->k, &layer->v, &layer->o,
                           &layer->gate, &layer->up, &layer->down}) {
    std::vector<uint8_t> codes(static_cast<size_t>(t->n_out) * t->n_in);
    const absl::Status status = DecodeTernaryRows(*t, 0, t->n_out, &codes[0]);
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

// Damaged for the reason that their names give, and for no other.
TEST(GgufFuzz, DamageOfMatricesIsCalledByItsName) {
  const std::map<std::string, std::string> messages = {
      {"tq1_0_fifth_digit", "blk.0.ffn_down.weight holds a code"},
      {"tq2_0_code_3", "blk.0.ffn_down.weight holds a code"},
      {"tq2_0_scales", "blk.0.ffn_down.weight has blocks of different scales"},
      {"tq2_0_infinite", "blk.0.ffn_down.weight"},
      {"scale_nan", "blk.0.attn_q.scale is not finite"},
      {"scale_huge", "blk.0.attn_q.weight"},
      {"scale_type", "blk.0.attn_q.scale has type F16"},
      {"scale_shape", "blk.0.attn_q.scale has shape [2]"},
      {"scale_of_nothing", "a tensor blk.0.attn_norm.scale that"},
      {"llama_sub_norm", "a tensor blk.0.attn_sub_norm.weight that"},
      {"llama_rope_freqs", "a tensor rope_freqs.weight that"},
      {"llama_head_rows", "output.weight has shape [16, 3]"},
  };
  size_t n_found = 0;
  for (const GgufSeed& seed : GgufSeeds()) {
    const auto it = messages.find(seed.name);
    const absl::Status fault = FirstFault(seed.bytes);
    EXPECT_TRUE(fault.ok() || !seed.is_sound) << seed.name << ": " << fault;
    if (it == messages.end()) continue;
    ++n_found;
    EXPECT_TRUE(absl::StrContains(fault.message(), it->second))
        << seed.name << ": " << fault;
  }
  EXPECT_EQ(n_found, messages.size());
}

// The same mutations every time; a sanitizer build looks closer.
TEST(GgufFuzz, SurvivesMutations) {
  const std::vector<GgufSeed> seeds = GgufSeeds();
  std::vector<GgufSeed> sound;
  for (const GgufSeed& seed : seeds) {
    if (seed.is_sound) sound.push_back(seed);
  }
  int count[4] = {};
  for (int round = 0; round < 20000; ++round) {
    std::mt19937 rng(round);
    // Half of the time a whole model: mutations that it survives reach far.
    const std::vector<GgufSeed>& some = round % 2 == 0 ? sound : seeds;
    const GgufSeed& seed = some[rng() % some.size()];
    const Bytes bytes = Mutated(seed.bytes, &rng);
    ++count[static_cast<int>(ExerciseGguf(bytes))];
  }
  // They go everywhere.
  for (int depth = 0; depth < 4; ++depth) EXPECT_GT(count[depth], 500) << depth;
}

}  // namespace
}  // namespace tern
