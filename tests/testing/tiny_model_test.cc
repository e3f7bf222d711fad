#include "tests/testing/tiny_model.h"

#include <unistd.h>

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "gtest/gtest.h"
#include "model/gguf_config.h"
#include "model/gguf_reader.h"
#include "model/gguf_weights.h"
#include "model/model_config.h"
#include "model/weights.h"
#include "tests/testing/gguf_builder.h"
#include "util/crc32c.h"

namespace tern {
namespace testing {
namespace {

uint32_t Checksum(const TinyModelOptions& options) {
  const Bytes bytes = TinyModelBytes(options);
  return Crc32c(bytes.data(), bytes.size());
}

// Goldens elsewhere stand on these very bytes.
TEST(TinyModel, IsTheSameForEver) {
  EXPECT_EQ(Checksum({}), 305696224u);
  TinyModelOptions options;
  options.n_layers = 3;
  options.vocab_size = 700;
  options.tied_head = false;
  options.f32_embedding = true;
  options.add_eot = true;
  options.seed = 7;
  EXPECT_EQ(Checksum(options), 3839232543u);
}

TEST(TinyModel, SeedsDiffer) {
  TinyModelOptions options;
  options.seed = 2;
  EXPECT_NE(Checksum(options), Checksum({}));
}

TEST(TinyModel, IsReadInEverySize) {
  for (int hidden_size : {16, 64, 256, 512}) {
    TinyModelOptions options;
    options.hidden_size = hidden_size;
    options.ffn_size = 2 * hidden_size;
    options.head_dim = hidden_size / options.n_heads;
    options.tied_head = hidden_size != 64;
    const std::string path = WriteTinyModel(options);
    auto file = GgufReader::Open(path);
    unlink(path.c_str());
    ASSERT_TRUE(file.ok()) << file.status();
    auto config = ReadModelConfig(**file);
    ASSERT_TRUE(config.ok()) << config.status();
    EXPECT_EQ(config->hidden_size, hidden_size);
    EXPECT_EQ(config->vocab_size, options.vocab_size);
    EXPECT_EQ(config->tied_head, options.tied_head);
    for (int layer = 0; layer < config->n_layers; ++layer) {
      auto tensors = FindLayer(**file, *config, layer);
      ASSERT_TRUE(tensors.ok()) << tensors.status();
      std::vector<uint8_t> codes(tensors->down.n_out * tensors->down.n_in);
      ASSERT_TRUE(
          DecodeTernaryRows(tensors->down, 0, tensors->down.n_out, codes.data())
              .ok());
      int count[3] = {};
      for (uint8_t code : codes) ++count[code];
      EXPECT_NEAR(count[1], 0.4 * codes.size(), 0.1 * codes.size());
      EXPECT_NEAR(count[0], count[2], 0.1 * codes.size());
    }
  }
}

TEST(GgufBuilder, PacksHalves) {
  const Bytes bytes = PackF16({1.0f, -2.0f, 65504.0f, 0x1p-24f, 0x1p-14f, 0.0f,
                               1.0f + 0x1p-11f, 1.0f + 3 * 0x1p-11f});
  const uint16_t expected[] = {0x3c00, 0xc000, 0x7bff, 0x0001,
                               0x0400, 0x0000, 0x3c00, 0x3c02};
  ASSERT_EQ(bytes.size(), sizeof(expected));
  for (int i = 0; i < 8; ++i) {
    EXPECT_EQ(bytes[2 * i] | bytes[2 * i + 1] << 8, expected[i]) << i;
  }
}

}  // namespace
}  // namespace testing
}  // namespace tern
