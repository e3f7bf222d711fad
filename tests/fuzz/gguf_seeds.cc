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
testing::TinyModelOptions SmallOptions() {
  testing::TinyModelOptions options;
  options.n_layers = 1;
  options.hidden_size = 16;
  options.ffn_size = 16;
  options.n_heads = 4;
  options.n_kv_heads = 2;
  options.head_dim = 4;
  options.vocab_size = 270;
  options.context_length = 32;
  return options;
}

GgufBuilder SmallModel() { return testing::TinyModel(SmallOptions()); }

// Without sub-norms, with a head of its own.
GgufBuilder LlamaModel() {
  testing::TinyModelOptions options = SmallOptions();
  options.architecture = "llama";
  options.vocab_size = 258;
  options.tied_head = false;
  return testing::TinyModel(options);
}

// attn_output and ffn_down have rows of whole blocks; the others stay I2_S.
GgufBuilder BlocksModel(uint32_t type) {
  testing::TinyModelOptions options = SmallOptions();
  options.head_dim = 64;
  options.n_kv_heads = 1;
  options.ffn_size = 256;
  options.vocab_size = 258;
  options.matrix_type = type;
  return testing::TinyModel(options);
}

// Scales in tensors beside the matrices.
GgufBuilder ScalesModel() {
  testing::TinyModelOptions options = SmallOptions();
  options.scale_tensors = true;
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

// The same without a tokenizer and with four rows of embedding and head, for
// damage that is found in matrices.
GgufBuilder Short(GgufBuilder builder, const std::string& architecture) {
  constexpr int kRows = 4, kColumns = 16;
  for (const char* key : {"model", "pre", "tokens", "token_type", "merges",
                          "bos_token_id", "eos_token_id"}) {
    builder.Remove(std::string("tokenizer.ggml.") + key);
  }
  builder.SetUint32(architecture + ".vocab_size", kRows);
  std::vector<std::string> dense = {"token_embd.weight"};
  if (architecture == "llama") dense.push_back("output.weight");
  for (const std::string& name : dense) {
    GgufBuilder::Tensor* const tensor = builder.MutableTensor(name);
    tensor->dims = {kColumns, kRows};
    tensor->data.resize(kRows * kColumns * 2);  // F16
  }
  return builder;
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
  const Bytes header = HeaderOnly().Build();
  const auto add = [&](const char* name, Bytes bytes) {
    seeds.push_back({name, std::move(bytes)});
  };
  const auto add_sound = [&](const char* name, const GgufBuilder& builder) {
    seeds.push_back({name, builder.Build(), /*is_sound=*/true});
  };
  const auto spoilt_header =
      [&](const char* name, const std::function<void(GgufBuilder*)>& spoil) {
        GgufBuilder builder = HeaderOnly();
        spoil(&builder);
        add(name, builder.Build());
      };
  const auto spoilt = [&](const char* name, GgufBuilder builder,
                          const std::function<void(GgufBuilder*)>& spoil) {
    spoil(&builder);
    add(name, builder.Build());
  };
  const auto spoilt_model =
      [&](const char* name, const std::function<void(GgufBuilder*)>& spoil) {
        spoilt(name, SmallModel(), spoil);
      };

  add_sound("model", SmallModel());
  add_sound("llama", LlamaModel());
  add_sound("tq1_0", BlocksModel(GgufBuilder::kTQ1_0));
  add_sound("tq2_0", BlocksModel(GgufBuilder::kTQ2_0));
  add_sound("scales", ScalesModel());
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

  // blk.0.ffn_down has 16 rows of one block each.
  constexpr char kDown[] = "blk.0.ffn_down.weight";
  constexpr int kTq1Digits = 48;  // of the last 16 weights, four bytes
  constexpr int kTq2Block = 66;
  const auto blocks = [](uint32_t type) {
    return Short(BlocksModel(type), "bitnet-b1.58");
  };
  spoilt("tq1_0_fifth_digit", blocks(B::kTQ1_0),
         [&](B* b) { b->MutableTensor(kDown)->data[kTq1Digits] = 0xff; });
  spoilt("tq2_0_code_3", blocks(B::kTQ2_0),
         [&](B* b) { b->MutableTensor(kDown)->data[kTq2Block + 7] = 0xc0; });
  spoilt("tq2_0_scales", blocks(B::kTQ2_0), [&](B* b) {
    b->MutableTensor(kDown)->data[16 * kTq2Block - 1] ^= 0x04;
  });
  spoilt("tq2_0_infinite", blocks(B::kTQ2_0), [&](B* b) {
    Bytes& data = b->MutableTensor(kDown)->data;
    for (size_t end = kTq2Block; end <= data.size(); end += kTq2Block) {
      data[end - 2] = 0;
      data[end - 1] = 0x7c;
    }
  });

  const GgufBuilder scales = Short(ScalesModel(), "bitnet-b1.58");
  constexpr char kScale[] = "blk.0.attn_q.scale";
  spoilt("scale_nan", scales, [&](B* b) {
    b->MutableTensor(kScale)->data = testing::PackF32({NAN});
  });
  spoilt("scale_huge", scales, [&](B* b) {
    b->MutableTensor(kScale)->data = testing::PackF32({3e38f});
    b->MutableTensor("blk.0.attn_q.weight")->data =
        testing::PackI2S(Bytes(256, 2), 3e38f);
  });
  spoilt("scale_type", scales,
         [&](B* b) { b->MutableTensor(kScale)->type = B::kF16; });
  spoilt("scale_shape", scales, [&](B* b) {
    b->MutableTensor(kScale)->dims = {2};
    b->MutableTensor(kScale)->data = Bytes(8);
  });
  spoilt("scale_of_nothing", scales, [&](B* b) {
    b->MutableTensor(kScale)->name = "blk.0.attn_norm.scale";
  });

  const GgufBuilder llama = Short(LlamaModel(), "llama");
  spoilt("llama_sub_norm", llama, [](B* b) {
    b->AddTensor("blk.0.attn_sub_norm.weight", {16}, B::kF32, Bytes(64));
  });
  spoilt("llama_rope_freqs", llama, [](B* b) {
    b->AddTensor("rope_freqs.weight", {2}, B::kF32, Bytes(8));
  });
  spoilt("llama_head_rows", llama, [](B* b) {
    b->MutableTensor("output.weight")->dims = {16, 3};
  });

  GgufBuilder special = SmallModel();
  special.SetString("general.name", "<|end_of_text|><|begin_of\xff");
  add_sound("name_is_special", special);
  return seeds;
}

}  // namespace tern
