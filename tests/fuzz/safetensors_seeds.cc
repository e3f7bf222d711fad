#include "tests/fuzz/safetensors_seeds.h"

#include <functional>
#include <utility>

#include "absl/strings/str_replace.h"
#include "absl/strings/string_view.h"
#include "tests/testing/safetensors_builder.h"
#include "tests/testing/tiny_model.h"

namespace tern {
namespace {

using testing::Bytes;
using testing::SafetensorsBuilder;
using testing::SafetensorsBytes;
using testing::TinyPacking;
using testing::TinySafetensors;

// One layer, width 16: some 14 KB, of which the embedding is most.
TinySafetensors SmallModel(TinyPacking packing) {
  testing::TinyModelOptions options;
  options.architecture =
      packing == TinyPacking::kPacked ? "llama" : "bitnet-b1.58";
  options.n_layers = 1;
  options.hidden_size = 16;
  options.ffn_size = 16;
  options.n_heads = 4;
  options.n_kv_heads = 2;
  options.head_dim = 4;
  options.vocab_size = 258;
  options.context_length = 32;
  options.scales = packing == TinyPacking::kMasters
                       ? testing::TinyScales::kMaster
                       : testing::TinyScales::kHalf;
  return testing::TinySafetensorsModel(options, packing);
}

Bytes Joined(absl::string_view config, const Bytes& file) {
  Bytes out;
  testing::AppendUint32(config.size(), &out);
  out.insert(out.end(), config.begin(), config.end());
  out.insert(out.end(), file.begin(), file.end());
  return out;
}

}  // namespace

std::vector<SafetensorsSeed> SafetensorsSeeds() {
  std::vector<SafetensorsSeed> seeds;
  const TinySafetensors model = SmallModel(TinyPacking::kPacked);
  const TinySafetensors reciprocal = SmallModel(TinyPacking::kPackedReciprocal);
  const TinySafetensors masters = SmallModel(TinyPacking::kMasters);
  const Bytes file = model.tensors.Build();
  const auto add = [&](const char* name, Bytes bytes) {
    seeds.push_back({name, std::move(bytes)});
  };
  add("model_packed", Joined(model.config_json, file));
  add("model_reciprocal",
      Joined(reciprocal.config_json, reciprocal.tensors.Build()));
  add("model_masters", Joined(masters.config_json, masters.tensors.Build()));

  add("empty", {});
  add("cut_in_config",
      Bytes(seeds[0].bytes.begin(), seeds[0].bytes.begin() + 100));
  add("cut_in_header",
      Bytes(seeds[0].bytes.begin(), seeds[0].bytes.begin() + 1000));
  add("cut_in_data", Bytes(seeds[0].bytes.begin(), seeds[0].bytes.end() - 1));

  const auto config = [&](const char* name, absl::string_view from,
                          absl::string_view to) {
    add(name,
        Joined(absl::StrReplaceAll(model.config_json, {{from, to}}), file));
  };
  config("config_list", "{\"arch", "[\"arch");
  config("config_layers", "\"num_hidden_layers\":1", "\"num_hidden_layers\":9");
  config("config_heads", "\"num_attention_heads\":4",
         "\"num_attention_heads\":-4");
  config("config_head_dim", "\"head_dim\":4", "\"head_dim\":1e300");
  config("config_theta", "\"rope_theta\":10000.0",
         "\"rope_theta\":[[[[[1]]]]]");
  config("config_dense", "quantization_config", "other_config");
  config("config_method", "\"bitnet\"", "\"gptq\"");
  config("config_online", "offline", "online");

  const auto spoilt =
      [&](const char* name,
          const std::function<void(SafetensorsBuilder*)>& spoil) {
        SafetensorsBuilder builder = model.tensors;
        spoil(&builder);
        add(name, Joined(model.config_json, builder.Build()));
      };
  const char* const q = "model.layers.0.self_attn.q_proj.weight";
  spoilt("code_3",
         [&](SafetensorsBuilder* b) { b->MutableTensor(q)->data[9] = 0xff; });
  spoilt("matrix_dtype",
         [&](SafetensorsBuilder* b) { b->MutableTensor(q)->dtype = "I8"; });
  spoilt("matrix_shape", [&](SafetensorsBuilder* b) {
    b->MutableTensor(q)->shape = {16, 4};
  });
  spoilt("tensor_missing", [&](SafetensorsBuilder* b) { b->RemoveTensor(q); });
  spoilt("tensor_extra", [](SafetensorsBuilder* b) {
    b->AddTensor("lm_head.bias", "F64", {1}, Bytes(8));
  });

  // Headers alone, short enough for mutations to hit where it matters.
  const auto header = [&](const char* name, absl::string_view text) {
    add(name, Joined("{}", SafetensorsBytes(text, Bytes(8))));
  };
  header("header_sound",
         R"({"a":{"dtype":"U8","shape":[2,2],"data_offsets":[0,4]},)"
         R"("b":{"dtype":"F16","shape":[2],"data_offsets":[4,8]}})");
  header("header_overlap",
         R"({"a":{"dtype":"U8","shape":[2,3],"data_offsets":[0,6]},)"
         R"("b":{"dtype":"F16","shape":[2],"data_offsets":[4,8]}})");
  header("header_deep", R"({"a":{"shape":[[[[[[[[[[[[[[[[)");
  header("header_overflow",
         R"({"a":{"dtype":"F64","shape":[4294967296,4294967296,2],)"
         R"("data_offsets":[0,8]}})");
  header("header_offsets",
         R"({"a":{"dtype":"U8","shape":[8],)"
         R"("data_offsets":[18446744073709551608,18446744073709551615]}})");
  header("header_twice",
         R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
         R"("a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})");
  header("header_metadata", R"({"__metadata__":{"a":"b","c":{"d":1}}})");
  return seeds;
}

}  // namespace tern
