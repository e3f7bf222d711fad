// Every operation against an independent implementation, one at a time, each
// fed with that implementation's inputs: BitLinear equals it bit for bit,
// everything else within 2e-6 of the largest value of the row.

#include <cmath>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "kernels/attention.h"
#include "kernels/head.h"
#include "kernels/isa.h"
#include "kernels/kernels.h"
#include "kernels/quantize.h"
#include "kernels/rope_table.h"
#include "kernels/ternary_layout.h"
#include "model/gguf_config.h"
#include "model/gguf_reader.h"
#include "model/gguf_weights.h"
#include "model/model_config.h"
#include "model/weights.h"
#include "tests/parity/trace_file.h"

namespace tern {
namespace {

constexpr char kModel[] = "models/demo/shakespeare-demo-i2_s.gguf";
constexpr char kTrace[] = "tests/parity/testdata/op_trace.bin";
constexpr double kTolerance = 2e-6;

// A vector aligned for packed weights and KV blocks.
template <typename T>
class Aligned {
 public:
  explicit Aligned(size_t n)
      : data_(static_cast<T*>(
            std::aligned_alloc(64, (n * sizeof(T) + 63) / 64 * 64))) {
    std::memset(data_, 0, (n * sizeof(T) + 63) / 64 * 64);
  }
  ~Aligned() { std::free(data_); }
  Aligned(const Aligned&) = delete;
  Aligned& operator=(const Aligned&) = delete;
  T* get() { return data_; }

 private:
  T* data_;
};

class OpParityTest : public ::testing::TestWithParam<Isa> {
 protected:
  void SetUp() override {
    auto file = GgufReader::Open(kModel);
    ASSERT_TRUE(file.ok()) << file.status();
    file_ = std::move(*file);
    auto config = ReadModelConfig(*file_);
    ASSERT_TRUE(config.ok()) << config.status();
    config_ = *config;
    auto layer = FindLayer(*file_, config_, 0);
    ASSERT_TRUE(layer.ok()) << layer.status();
    layer_ = std::move(*layer);
    auto trace = TraceFile::Read(kTrace);
    ASSERT_TRUE(trace.ok()) << trace.status();
    trace_ = std::move(*trace);
    n_tokens_ = trace_.Shape("tokens")[0];
  }

  const Kernels& kernels() const { return KernelsFor(GetParam()); }

  // Compares rows of `width`, each against its own largest magnitude.
  static void ExpectClose(const std::vector<float>& actual,
                          const std::vector<float>& expected, int width,
                          const std::string& what) {
    ASSERT_EQ(actual.size(), expected.size()) << what;
    for (size_t row = 0; row < expected.size(); row += width) {
      double largest = 0;
      for (int i = 0; i < width; ++i) {
        largest = std::max<double>(largest, std::fabs(expected[row + i]));
      }
      for (int i = 0; i < width; ++i) {
        ASSERT_NEAR(actual[row + i], expected[row + i], kTolerance * largest)
            << what << " row " << row / width << " element " << i
            << ", largest of the row " << largest;
      }
    }
  }

  void CheckNorm(const std::string& name, const std::vector<float>& weight) {
    const std::vector<float> x = trace_.Get<float>(name + "/x");
    const int n = static_cast<int>(weight.size());
    std::vector<float> y(x.size());
    for (int t = 0; t < n_tokens_; ++t) {
      kernels().rms_norm(&x[t * n], weight.data(), n, config_.norm_eps,
                         &y[t * n]);
    }
    ExpectClose(y, trace_.Get<float>(name + "/y"), n, name);
  }

  // x_name holds the input (k and v share q's, up shares gate's).
  void CheckLinear(const TernaryTensor& w, const std::string& x_name,
                   const std::string& y_name) {
    const std::vector<float> x = trace_.Get<float>(x_name + "/x");
    Aligned<int8_t> q(x.size());
    std::vector<float> s(n_tokens_);
    std::vector<int32_t> sum(n_tokens_);
    for (int t = 0; t < n_tokens_; ++t) {
      const QuantizedScale scale = kernels().quantize_token(
          &x[t * w.n_in], w.n_in, q.get() + t * w.n_in);
      s[t] = scale.s;
      sum[t] = scale.sum;
    }
    const std::vector<int8_t> want_q = trace_.Get<int8_t>(x_name + "/q");
    const std::vector<float> want_s = trace_.Get<float>(x_name + "/s");
    for (size_t i = 0; i < want_q.size(); ++i) {
      ASSERT_EQ(int{q.get()[i]}, int{want_q[i]}) << x_name << " q at " << i;
    }
    ASSERT_EQ(std::memcmp(s.data(), want_s.data(), 4 * s.size()), 0) << x_name;

    std::vector<uint8_t> codes(size_t{kPanelRows} * w.n_in);
    Aligned<uint8_t> packed(PackedBytes(w.n_out, w.n_in));
    for (int row = 0; row < w.n_out; row += kPanelRows) {
      const int end = std::min(row + kPanelRows, w.n_out);
      ASSERT_TRUE(DecodeTernaryRows(w, row, end, codes.data()).ok());
      PackTernaryPanel(codes.data(), end - row, w.n_in,
                       packed.get() + row / kPanelRows * PanelBytes(w.n_in));
    }
    const TernaryView view = {packed.get(), w.n_out, w.n_in, w.scale};
    const QuantizedTokens tokens = {q.get(), s.data(), sum.data(), n_tokens_,
                                    w.n_in};
    std::vector<float> y(size_t(n_tokens_) * w.n_out);
    kernels().ternary_matmul(view, tokens, 0, w.n_out, y.data(), w.n_out);
    const std::vector<float> want = trace_.Get<float>(y_name + "/y");
    ASSERT_EQ(y.size(), want.size());
    for (size_t i = 0; i < y.size(); ++i) {
      ASSERT_EQ(std::memcmp(&y[i], &want[i], 4), 0)
          << y_name << " element " << i << ": " << y[i] << ", not " << want[i];
    }
  }

  std::unique_ptr<GgufReader> file_;
  ModelConfig config_;
  LayerTensors layer_;
  TraceFile trace_;
  int n_tokens_ = 0;
};

TEST_P(OpParityTest, Norms) {
  CheckNorm("blk.0.attn_norm.weight", layer_.attn_norm);
  CheckNorm("blk.0.attn_sub_norm.weight", layer_.attn_sub_norm);
  CheckNorm("blk.0.ffn_norm.weight", layer_.ffn_norm);
  CheckNorm("blk.0.ffn_sub_norm.weight", layer_.ffn_sub_norm);
  auto output_norm = FindOutputNorm(*file_, config_);
  ASSERT_TRUE(output_norm.ok()) << output_norm.status();
  CheckNorm("output_norm.weight", *output_norm);
}

TEST_P(OpParityTest, BitLinearIsEqual) {
  const std::string b = "blk.0.";
  CheckLinear(layer_.q, b + "attn_q.weight", b + "attn_q.weight");
  CheckLinear(layer_.k, b + "attn_q.weight", b + "attn_k.weight");
  CheckLinear(layer_.v, b + "attn_q.weight", b + "attn_v.weight");
  CheckLinear(layer_.o, b + "attn_output.weight", b + "attn_output.weight");
  CheckLinear(layer_.gate, b + "ffn_gate.weight", b + "ffn_gate.weight");
  CheckLinear(layer_.up, b + "ffn_gate.weight", b + "ffn_up.weight");
  CheckLinear(layer_.down, b + "ffn_down.weight", b + "ffn_down.weight");
}

TEST_P(OpParityTest, Rope) {
  const int dim = config_.head_dim;
  const RopeTable table(dim, config_.rope_theta, config_.context_length);
  auto check = [&](const std::string& prefix, const std::string& which,
                   int n_heads, int first_position) {
    std::vector<float> x = trace_.Get<float>(prefix + "/" + which + "_in");
    for (size_t head = 0; head * dim < x.size(); ++head) {
      const int position = first_position + static_cast<int>(head) / n_heads;
      kernels().rope_rotate(&x[head * dim], table.cos(position),
                            table.sin(position), dim, RopePairing::kNeox);
    }
    ExpectClose(x, trace_.Get<float>(prefix + "/" + which + "_out"),
                n_heads * dim, prefix + "/" + which);
  };
  const int last = trace_.Shape("long/tokens")[0] - 1;
  check("blk.0.rope", "q", config_.n_heads, 0);
  check("blk.0.rope", "k", config_.n_kv_heads, 0);
  check("long/rope", "q", config_.n_heads, last);
  check("long/rope", "k", config_.n_kv_heads, last);
}

// Keys and values of the trace are on the float16 grid already.
class KvPool {
 public:
  KvPool(const ModelConfig& config, int n_positions)
      : config_(config),
        elements_(KvBlockElements(config.n_kv_heads, config.head_dim)),
        n_blocks_((n_positions + kKvBlockSize - 1) / kKvBlockSize),
        k_(n_blocks_ * elements_),
        v_(n_blocks_ * elements_) {
    // Descending ids: the table's order matters, not the pool's.
    for (int i = 0; i < n_blocks_; ++i) table_.push_back(n_blocks_ - 1 - i);
  }

  void Store(const Kernels& kernels, int position, const float* k,
             const float* v) {
    const size_t base = table_[position / kKvBlockSize] * elements_;
    const KvBlockView block = {k_.get() + base, v_.get() + base,
                               config_.n_kv_heads, config_.head_dim};
    kernels.store_kv(block, position % kKvBlockSize, k, v);
  }

  std::vector<float> Attend(const Kernels& kernels, const float* q,
                            int n_positions) {
    AttentionArgs args = {};
    args.q = q;
    args.k_pool = k_.get();
    args.v_pool = v_.get();
    args.block_table = table_.data();
    args.n_positions = n_positions;
    args.n_heads = config_.n_heads;
    args.n_kv_heads = config_.n_kv_heads;
    args.head_dim = config_.head_dim;
    args.scale = static_cast<float>(1.0 / std::sqrt(double(config_.head_dim)));
    std::vector<float> y(config_.q_size());
    kernels.attend(args, 0, config_.n_heads, y.data());
    return y;
  }

 private:
  const ModelConfig& config_;
  const size_t elements_;
  const int n_blocks_;
  Aligned<uint16_t> k_;
  Aligned<uint16_t> v_;
  std::vector<int32_t> table_;
};

TEST_P(OpParityTest, AttentionOfFewPositions) {
  const std::string op = "blk.0.attention/";
  const std::vector<float> q = trace_.Get<float>(op + "q");
  const std::vector<float> k = trace_.Get<float>(op + "k");
  const std::vector<float> v = trace_.Get<float>(op + "v");
  KvPool pool(config_, n_tokens_);
  std::vector<float> y;
  for (int t = 0; t < n_tokens_; ++t) {
    pool.Store(kernels(), t, &k[t * config_.kv_size()],
               &v[t * config_.kv_size()]);
    const std::vector<float> row =
        pool.Attend(kernels(), &q[t * config_.q_size()], t + 1);
    y.insert(y.end(), row.begin(), row.end());
  }
  ExpectClose(y, trace_.Get<float>(op + "y"), config_.q_size(), op);
}

float HalfToFloat(uint16_t half) {
  const int exponent = (half >> 10) & 31;
  const int mantissa = half & 1023;
  const float magnitude =
      exponent == 0 ? std::ldexp(float(mantissa), -24)
                    : std::ldexp(float(mantissa + 1024), exponent - 25);
  return half >> 15 ? -magnitude : magnitude;
}

TEST_P(OpParityTest, AttentionOverSeveralChunks) {
  const std::string op = "long/attention/";
  const int n = trace_.Shape("long/tokens")[0];
  ASSERT_GT(n, 2 * kAttentionChunk);
  auto widen = [](const std::vector<uint16_t>& halves) {
    std::vector<float> out;
    for (uint16_t half : halves) out.push_back(HalfToFloat(half));
    return out;
  };
  const std::vector<float> k = widen(trace_.Get<uint16_t>(op + "k"));
  const std::vector<float> v = widen(trace_.Get<uint16_t>(op + "v"));
  KvPool pool(config_, n);
  for (int t = 0; t < n; ++t) {
    pool.Store(kernels(), t, &k[t * config_.kv_size()],
               &v[t * config_.kv_size()]);
  }
  const std::vector<float> q = trace_.Get<float>(op + "q");
  ExpectClose(pool.Attend(kernels(), q.data(), n), trace_.Get<float>(op + "y"),
              config_.q_size(), op);
}

TEST_P(OpParityTest, GateAndResidual) {
  const std::string b = "blk.0.";
  const std::vector<float> gate = trace_.Get<float>(b + "ffn_gate.weight/y");
  const std::vector<float> up = trace_.Get<float>(b + "ffn_up.weight/y");
  std::vector<float> y(gate.size());
  for (int t = 0; t < n_tokens_; ++t) {
    kernels().relu2_gate(&gate[t * config_.ffn_size], &up[t * config_.ffn_size],
                         config_.ffn_size, &y[t * config_.ffn_size]);
  }
  ExpectClose(y, trace_.Get<float>(b + "gate/y"), config_.ffn_size, "gate");

  std::vector<float> x = trace_.Get<float>(b + "ffn_norm.weight/x");
  const std::vector<float> down = trace_.Get<float>(b + "ffn_down.weight/y");
  kernels().add(x.data(), down.data(), static_cast<int>(x.size()));
  EXPECT_EQ(x, trace_.Get<float>(b + "residual/y"));
}

TEST_P(OpParityTest, HeadStored) {
  auto head = FindHead(*file_, config_);
  ASSERT_TRUE(head.ok()) << head.status();
  const DenseView view = {head->data.data(), DenseType::kF16, head->n_rows,
                          head->n_columns};
  const std::vector<float> x = trace_.Get<float>("head/x");
  std::vector<float> logits(size_t(n_tokens_) * view.n_rows);
  for (int t = 0; t < n_tokens_; ++t) {
    kernels().head_stored(view, &x[t * view.n_columns], 0, view.n_rows,
                          &logits[t * view.n_rows]);
  }
  ExpectClose(logits, trace_.Get<float>("head/y"), view.n_rows, "head");
}

INSTANTIATE_TEST_SUITE_P(Isas, OpParityTest,
                         ::testing::ValuesIn(SupportedIsas()),
                         [](const ::testing::TestParamInfo<Isa>& info) {
                           return std::string(IsaName(info.param).data(),
                                              IsaName(info.param).size());
                         });

}  // namespace
}  // namespace tern
