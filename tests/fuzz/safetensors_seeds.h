#ifndef TESTS_FUZZ_SAFETENSORS_SEEDS_H_
#define TESTS_FUZZ_SAFETENSORS_SEEDS_H_

#include <string>
#include <vector>

#include "tests/testing/gguf_builder.h"

namespace tern {

struct SafetensorsSeed {
  std::string name;  // of its file in corpus/safetensors
  testing::Bytes bytes;
};

// Where fuzzing starts: small sound models of each packing, and one for each
// kind of damage that a reader must notice.
std::vector<SafetensorsSeed> SafetensorsSeeds();

}  // namespace tern

#endif  // TESTS_FUZZ_SAFETENSORS_SEEDS_H_
