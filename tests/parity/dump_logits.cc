// Writes a model's logits, for comparison with other engines:
//   dump_logits MODEL.gguf stored|int8 OUT.f32 ID...
// OUT.f32 gets float32 [tokens, vocab_size], the logits after each token.

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>

#include "kernels/head.h"
#include "kernels/isa.h"
#include "tests/parity/whole_model.h"

int main(int argc, char** argv) {
  tern::HeadMode head_mode;
  if (argc < 5 || !tern::ParseHeadMode(argv[2], &head_mode)) {
    std::fprintf(stderr,
                 "usage: dump_logits MODEL.gguf stored|int8 OUT.f32 ID...\n");
    return 2;
  }
  auto model = tern::WholeModel::Load(argv[1], head_mode,
                                      tern::SupportedIsas().back(), 2);
  if (!model.ok()) {
    std::cerr << model.status() << "\n";
    return 1;
  }
  std::ofstream out(argv[3], std::ios::binary);
  for (int i = 4; i < argc; ++i) {
    const int32_t token = std::atoi(argv[i]);
    if (token < 0 || token >= (*model)->config().vocab_size) {
      std::fprintf(stderr, "no token %s in this model\n", argv[i]);
      return 1;
    }
    const std::vector<float> logits = (*model)->Append({&token, 1});
    out.write(reinterpret_cast<const char*>(logits.data()),
              logits.size() * sizeof(float));
  }
  return out.flush() ? 0 : 1;
}
