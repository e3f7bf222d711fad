#include "tests/fuzz/gguf_seeds.h"

#include <cmath>
#include <functional>
#include <utility>

#include "model/gguf_types.h"
#include "tests/testing/tiny_model.h"

namespace tern {
namespace {

using testing::AppendUint32;
using testing::AppendUint64;
using testing::Bytes;
using testing::GgufBuilder;

// One layer, width 16: some 16 KB.
GgufBuilder SmallModel() {
  testing::TinyModelOptions options;
  options.n_layers = 1;
  options.hidden_size = 16;
  options.ffn_size = 16;
  options.n_heads = 4;
  options.n_kv_heads = 2;
  options.head_dim = 4;
  options.vocab_size = 270;
  options.context_length = 32;
  return testing::TinyModel(options);
}

// Metadata and two tensors without a model: half a kilobyte that mutations hit
// where it matters.
GgufBuilder HeaderOnly() {
  return GgufBuilder()
      .SetString("general.architecture", "bitnet-b1.58")
      .SetUint32("general.alignment", 32)
      .SetUint64("general.file_type", 40)
      .SetFloat("bitnet-b1.58.rope.freq_base", 10000.0f)
      .SetBool("tokenizer.ggml.add_bos_token", true)
      .SetStringArray("tokenizer.ggml.tokens", {"a", "b", ""})
      .SetInt32Array("tokenizer.ggml.token_type", {1, 3, 6})
      .AddTensor("a", {128, 2}, GgufBuilder::kI2S, Bytes(96, 0x55))
      .AddTensor("b", {7}, GgufBuilder::kF16, Bytes(14, 1));
}

Bytes Array(uint32_t element_type, uint64_t count) {
  Bytes value;
  AppendUint32(element_type, &value);
  AppendUint64(count, &value);
  return value;
}

}  // namespace

std::vector<GgufSeed> GgufSeeds() {
  std::vector<GgufSeed> seeds;
  const Bytes model = SmallModel().Build();
  const Bytes header = HeaderOnly().Build();
  const auto add = [&](const char* name, Bytes bytes) {
    seeds.push_back({name, std::move(bytes)});
  };
  const auto spoilt_header =
      [&](const char* name, const std::function<void(GgufBuilder*)>& spoil) {
        GgufBuilder builder = HeaderOnly();
        spoil(&builder);
        add(name, builder.Build());
      };
  const auto spoilt_model =
      [&](const char* name, const std::function<void(GgufBuilder*)>& spoil) {
        GgufBuilder builder = SmallModel();
        spoil(&builder);
        add(name, builder.Build());
      };

  add("model", model);
  add("header", header);
  add("empty", {});
  add("cut_in_magic", Bytes(header.begin(), header.begin() + 3));
  add("cut_in_counts", Bytes(header.begin(), header.begin() + 20));
  add("cut_in_metadata", Bytes(header.begin(), header.begin() + 200));
  add("cut_in_directory", Bytes(header.begin(), header.end() - 150));
  add("cut_in_data", Bytes(header.begin(), header.end() - 1));

  using B = GgufBuilder;
  const uint64_t huge = ~uint64_t{0};
  spoilt_header("big_endian", [](B* b) { b->set_version(0x03000000); });
  spoilt_header("version_1", [](B* b) { b->set_version(1); });
  spoilt_header("tensor_count", [&](B* b) { b->set_tensor_count(huge); });
  spoilt_header("pair_count", [&](B* b) { b->set_pair_count(huge / 2); });
  spoilt_header("key_empty", [](B* b) { b->SetUint32("", 1); });
  spoilt_header("key_twice",
                [](B* b) { b->AddRaw("general.alignment", 4, Bytes(4)); });
  spoilt_header("value_type", [](B* b) { b->SetRaw("x", 13, Bytes(8)); });
  spoilt_header("bool_2", [](B* b) { b->SetRaw("x", kGgufBool, {2}); });
  spoilt_header("string_length",
                [](B* b) { b->SetRaw("x", kGgufString, Bytes(8, 0xff)); });
  spoilt_header("array_length", [&](B* b) {
    b->SetRaw("x", kGgufArray, Array(kGgufInt32, uint64_t{1} << 62));
  });
  spoilt_header("string_array_length", [&](B* b) {
    b->SetRaw("x", kGgufArray, Array(kGgufString, huge));
  });
  spoilt_header("array_of_arrays", [&](B* b) {
    b->SetRaw("x", kGgufArray, Array(kGgufArray, 1));
  });
  spoilt_header("split", [](B* b) { b->SetUint16("split.count", 2); });
  spoilt_header("alignment_0",
                [](B* b) { b->SetUint32("general.alignment", 0); });
  spoilt_header("alignment_48",
                [](B* b) { b->SetUint32("general.alignment", 48); });
  spoilt_header("dimension_0", [](B* b) { b->MutableTensor("b")->dims = {0}; });
  spoilt_header("dimension_product", [](B* b) {
    b->MutableTensor("b")->dims = {uint64_t{1} << 32, uint64_t{1} << 32};
  });
  spoilt_header("dimension_count",
                [](B* b) { b->MutableTensor("b")->n_dims = 5; });
  spoilt_header("offset_unaligned",
                [](B* b) { b->MutableTensor("b")->offset = 97; });
  spoilt_header("offset_huge",
                [&](B* b) { b->MutableTensor("b")->offset = huge - 31; });
  spoilt_header("overlap", [](B* b) { b->MutableTensor("b")->offset = 64; });
  spoilt_header("name_twice", [](B* b) { b->MutableTensor("b")->name = "a"; });
  spoilt_header("type_39", [](B* b) { b->MutableTensor("a")->type = 39; });
  spoilt_header("type_77", [](B* b) { b->MutableTensor("b")->type = 77; });
  spoilt_header("type_134", [](B* b) { b->MutableTensor("a")->type = 134; });

  spoilt_model("layers_1024",
               [](B* b) { b->SetUint32("bitnet-b1.58.block_count", 1024); });
  spoilt_model("heads_0", [](B* b) {
    b->SetUint32("bitnet-b1.58.attention.head_count", 0);
  });
  spoilt_model("epsilon_nan", [](B* b) {
    b->SetFloat("bitnet-b1.58.attention.layer_norm_rms_epsilon", NAN);
  });
  spoilt_model("code_3", [](B* b) {
    b->MutableTensor("blk.0.attn_q.weight")->data[5] = 0xff;
  });
  spoilt_model("merge_unknown", [](B* b) {
    b->SetStringArray("tokenizer.ggml.merges", {"h e", "Q Q", " x", ""});
  });
  spoilt_model("bos_beyond", [](B* b) {
    b->SetUint32("tokenizer.ggml.bos_token_id", 1u << 31);
  });
  spoilt_model("name_is_special", [](B* b) {
    b->SetString("general.name", "<|end_of_text|><|begin_of\xff");
  });
  return seeds;
}

}  // namespace tern
