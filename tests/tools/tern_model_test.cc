// Runs `tern` and, through it, tern_model on small models.

#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/integration/process.h"
#include "tests/testing/tiny_model.h"

namespace tern {
namespace {

constexpr absl::Duration kPatience = absl::Minutes(2);

std::string ReadAll(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::string Runfile(const std::string& path) {
  return absl::StrCat(std::getenv("TEST_SRCDIR"), "/",
                      std::getenv("TEST_WORKSPACE"), "/", path);
}

void CopyProgram(const std::string& from, const std::string& to) {
  std::ofstream(to, std::ios::binary) << ReadAll(from);
  chmod(to.c_str(), 0755);
}

class TernModelTest : public ::testing::Test {
 protected:
  TernModelTest() : tern_(Runfile("cli/tern")) {
    std::string directory = ::testing::TempDir() + "/tern_model_XXXXXX";
    directory_ = mkdtemp(&directory[0]);
  }

  std::string Path(const std::string& name) const {
    return absl::StrCat(directory_, "/", name);
  }

  // Runs `tern WORDS...`, keeps what it says, returns its exit code.
  int Tern(std::vector<std::string> words) {
    words.insert(words.begin(), tern_);
    const std::string log = Path(absl::StrCat("log", n_runs_++));
    const auto process = Process::Start(words, log);
    EXPECT_TRUE(process.ok()) << process.status();
    const auto code = (*process)->Wait(kPatience);
    EXPECT_TRUE(code.ok()) << code.status();
    said_ = (*process)->Log();
    return code.value_or(-1);
  }

  bool Said(absl::string_view text) const {
    return absl::StrContains(said_, text);
  }

  std::string tern_;
  std::string directory_;
  std::string said_;
  int n_runs_ = 0;
};

TEST_F(TernModelTest, ASynthesizedModelIsInspectedConvertedAndScored) {
  const std::string model = Path("m.gguf");
  ASSERT_EQ(Tern({"synth", "--preset=nano", "--vocab=600", "--seed=7", "--out",
                  model}),
            0)
      << said_;
  EXPECT_TRUE(Said("MB/s")) << said_;

  ASSERT_EQ(Tern({"inspect", model, "--json", "--stages=2"}), 0) << said_;
  const auto json = nlohmann::json::parse(said_);
  EXPECT_EQ(json["config"]["vocab_size"], 600);
  EXPECT_EQ(json["config"]["name"], "random-nano-seed7");
  EXPECT_EQ(json["plans"][0]["stages"].size(), 2u);
  EXPECT_TRUE(json["warnings"].empty());
  ASSERT_EQ(Tern({"inspect", "--tensors", model}), 0);
  EXPECT_TRUE(Said("blk.1.ffn_down.weight")) << said_;

  ASSERT_EQ(Tern({"convert", model, Path("tq2"), "--type=tq2_0"}), 0) << said_;
  EXPECT_TRUE(Said("14 matrices converted to TQ2_0")) << said_;
  ASSERT_EQ(Tern({"convert", Path("tq2"), Path("tq1"), "--type=tq1_0"}), 0);
  ASSERT_EQ(Tern({"convert", Path("tq1"), Path("back"), "--type=i2_s"}), 0);
  EXPECT_TRUE(ReadAll(Path("back")) == ReadAll(model));

  std::ofstream(Path("text")) << "a text, and another text; of some length.\n";
  std::vector<std::string> numbers;
  for (const char* name : {"m.gguf", "tq1", "tq2"}) {
    ASSERT_EQ(Tern({"perplexity", Path(name), "--text", Path("text"),
                    "--window=16", "--threads=1"}),
              0)
        << said_;
    ASSERT_TRUE(Said("nats a token")) << said_;
    numbers.push_back(said_.substr(0, said_.find("speed")));
  }
  EXPECT_EQ(numbers[1], numbers[0]);
  EXPECT_EQ(numbers[2], numbers[0]);
}

TEST_F(TernModelTest, ADirectoryOfSafetensorsBecomesAFileThatScoresTheSame) {
  testing::TinyModelOptions options;
  options.architecture = "llama";
  options.tied_head = false;
  const std::string directory = testing::WriteTinySafetensors(
      testing::TinySafetensorsModel(options, testing::TinyPacking::kPacked), 2);
  const std::string out = Path("out.gguf");
  ASSERT_EQ(Tern({"convert", directory, out, "--type=i2_s"}), 0) << said_;
  EXPECT_TRUE(Said("14 matrices converted to I2_S")) << said_;
  ASSERT_EQ(Tern({"inspect", out}), 0) << said_;
  EXPECT_FALSE(Said("warning:")) << said_;
  EXPECT_TRUE(Said("llama, 2 layers")) << said_;

  std::ofstream(Path("text")) << "a text, and another text; of some length.\n";
  std::vector<std::string> numbers;
  for (const std::string& path : {directory, out}) {
    ASSERT_EQ(Tern({"perplexity", path, "--text", Path("text")}), 0) << said_;
    ASSERT_TRUE(Said("nats a token")) << said_;
    numbers.push_back(said_.substr(0, said_.find("speed")));
  }
  EXPECT_EQ(numbers[1], numbers[0]);
}

TEST_F(TernModelTest, ScalesThatWouldRoundAreRefusedUnlessAllowed) {
  testing::TinyModelOptions options;
  options.hidden_size = options.ffn_size = 256;
  options.head_dim = 64;
  const std::string model = testing::WriteTinyModel(options);
  EXPECT_EQ(Tern({"convert", model, Path("out"), "--type=tq2_0"}), 1);
  EXPECT_TRUE(Said("FAILED_PRECONDITION")) << said_;
  EXPECT_NE(access(Path("out").c_str(), F_OK), 0);
  EXPECT_EQ(
      Tern({"convert", model, Path("out"), "--type=tq2_0", "--allow_rounding"}),
      0);
  EXPECT_TRUE(Said("warning: the scales of 14 matrices")) << said_;
  EXPECT_EQ(
      Tern({"convert", model, Path("out"), "--type=tq2_0", "--allow_rounding"}),
      1);
  EXPECT_TRUE(Said("is there already")) << said_;
  EXPECT_TRUE(Said("--force")) << said_;
}

TEST_F(TernModelTest, WrongCommandLinesAreUsageErrors) {
  for (const std::vector<std::string>& words :
       std::vector<std::vector<std::string>>{
           {"inspect"},
           {"inspect", "a", "b"},
           {"inspect", "a", "--out=b"},
           {"synth"},
           {"synth", "--out=x", "--preset=9b"},
           {"synth", "--out=x", "--type=q4_0"},
           {"synth", "--out=x", "--embd=i2_s"},
           {"convert", "a"},
           {"convert", "a", "b"},
           {"convert", "a", "b", "--type=f16"},
           {"convert", "a", "b", "--type=i2_s", "--threads=-1"},
           {"perplexity", "a"},
           {"perplexity", "a", "--text=b", "--head_mode=int4"},
           {"perplexity", "a", "--text=b", "--isa=mmx"},
           {"perplexity", "a", "--text=b", "--windows=-1"},
       }) {
    EXPECT_EQ(Tern(words), 2) << words[0] << ": " << said_;
    EXPECT_TRUE(Said(absl::StrCat("tern help ", words[0]))) << said_;
  }
}

TEST_F(TernModelTest, FailuresNameTheFile) {
  EXPECT_EQ(Tern({"inspect", Path("missing.gguf")}), 1);
  EXPECT_TRUE(Said("missing.gguf")) << said_;
  const std::string model =
      testing::WriteTinyModel(testing::TinyModelOptions());
  EXPECT_EQ(Tern({"perplexity", model, "--text", Path("no.txt")}), 1);
  EXPECT_TRUE(Said("no.txt")) << said_;
  EXPECT_EQ(Tern({"synth", "--out", Path("no/such/folder.gguf")}), 1);
  EXPECT_TRUE(Said("no/such/folder.gguf")) << said_;
}

TEST_F(TernModelTest, HelpGoesThroughTern) {
  EXPECT_EQ(Tern({"help"}), 0);
  EXPECT_TRUE(Said("  perplexity  measure")) << said_;
  for (const char* name : {"inspect", "convert", "synth", "perplexity"}) {
    EXPECT_EQ(Tern({"help", name}), 0);
    const std::string help = said_;
    EXPECT_TRUE(Said(absl::StrCat("usage: tern ", name))) << said_;
    EXPECT_TRUE(Said("Exit codes:")) << said_;
    EXPECT_EQ(Tern({name, "--help"}), 0);
    EXPECT_EQ(said_, help);
  }
}

TEST_F(TernModelTest, BenchMeasuresAModel) {
  EXPECT_EQ(Tern({"help", "bench"}), 0);
  EXPECT_TRUE(Said("  stage ")) << said_;
  EXPECT_EQ(Tern({"bench", "nothing"}), 2);
  EXPECT_EQ(Tern({"bench", "stage"}), 2);
  EXPECT_TRUE(Said("--model")) << said_;
  EXPECT_EQ(Tern({"bench", "stage", "--model=x", "--decodes=1"}), 2);
  EXPECT_TRUE(Said("--decodes")) << said_;
  EXPECT_EQ(Tern({"bench", "stage", "--model", Path("missing.gguf")}), 1);
  EXPECT_TRUE(Said("missing.gguf")) << said_;

  const std::string model =
      testing::WriteTinyModel(testing::TinyModelOptions());
  ASSERT_EQ(
      Tern({"bench", "stage", "--model", model, "--rounds=1", "--prompts=5",
            "--decodes=2@3", "--seconds=0", "--profile", "--threads=1,2"}),
      0)
      << said_;
  for (const char* text : {"2 threads: reads", "prompt of 5", "decode 2 at 3",
                           "attention", "of limit"}) {
    EXPECT_TRUE(Said(text)) << text << " in " << said_;
  }
}

TEST_F(TernModelTest, TernFindsTheProgramBesideItselfOrSaysWhereItLooked) {
  CopyProgram(tern_, Path("tern"));
  tern_ = Path("tern");
  EXPECT_EQ(Tern({"inspect", "x"}), 1);
  // Links on the way to the folder are resolved: its name alone is sure.
  const std::string folder = directory_.substr(directory_.rfind('/'));
  EXPECT_TRUE(Said(absl::StrCat(folder, "/tern_model,"))) << said_;
  EXPECT_TRUE(Said("/../tools/tern_model")) << said_;
  CopyProgram(Runfile("tools/tern_model"), Path("tern_model"));
  EXPECT_EQ(Tern({"help", "inspect"}), 0) << said_;
  EXPECT_TRUE(Said("usage: tern inspect")) << said_;
}

}  // namespace
}  // namespace tern
