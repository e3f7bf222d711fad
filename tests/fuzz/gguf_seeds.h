#ifndef TESTS_FUZZ_GGUF_SEEDS_H_
#define TESTS_FUZZ_GGUF_SEEDS_H_

#include <string>
#include <vector>

#include "tests/testing/gguf_builder.h"

namespace tern {

struct GgufSeed {
  std::string name;  // of its file in corpus/gguf
  testing::Bytes bytes;
  bool is_sound = false;  // a model that is served
};

// Where fuzzing starts: small sound models, the first a plain one and one for
// each other way to hold a model, and one file for each kind of damage that a
// reader must notice.
std::vector<GgufSeed> GgufSeeds();

}  // namespace tern

#endif  // TESTS_FUZZ_GGUF_SEEDS_H_
