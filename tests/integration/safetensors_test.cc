// A directory of safetensors served by real processes: the tokens of its GGUF
// twin, and what goes wrong is said.

#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "grpcpp/client_context.h"
#include "gtest/gtest.h"
#include "proto/tern/v1/inference.pb.h"
#include "tests/integration/local_cluster.h"
#include "tests/testing/tiny_model.h"

namespace tern {
namespace {

using testing::TinyModelOptions;
using testing::TinyPacking;

void SetDeadline(grpc::ClientContext* context) {
  context->set_deadline(absl::ToChronoTime(absl::Now() + absl::Seconds(60)));
}

// Rows of q and k lie in another order in the directory than in the file.
TinyModelOptions Options() {
  TinyModelOptions options;
  options.architecture = "llama";
  options.tied_head = false;
  options.n_layers = 4;
  options.scales = testing::TinyScales::kHalf;
  return options;
}

std::vector<v1::GenerateRequest> Requests() {
  const std::vector<std::string> prompts = {
      "a", "the king said: \u201cna\u00efve\u201d\n\n  12345",
      std::string(150, 'x')};
  std::vector<v1::GenerateRequest> requests;
  for (const std::string& prompt : prompts) {
    v1::GenerateRequest request;
    request.set_text(prompt);
    request.mutable_sampling()->set_temperature(requests.empty() ? 0 : 0.9f);
    request.mutable_sampling()->set_seed(11);
    request.mutable_stopping()->set_max_output_tokens(40);
    request.mutable_response_options()->set_return_token_ids(true);
    requests.push_back(std::move(request));
  }
  return requests;
}

// What came of the requests: tokens of prompts, answers and their text.
std::vector<std::string> Answers(const std::string& model, int stages) {
  LocalCluster::Options options;
  options.model = model;
  options.stages = stages;
  auto cluster = LocalCluster::Start(options);
  EXPECT_TRUE(cluster.ok()) << cluster.status();
  std::vector<std::string> answers;
  if (!cluster.ok()) return answers;
  for (const v1::GenerateRequest& request : Requests()) {
    grpc::ClientContext context;
    SetDeadline(&context);
    v1::GenerateResponse response;
    const grpc::Status status =
        (*cluster)->inference().Generate(&context, request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message() << (*cluster)->Logs();
    EXPECT_EQ(response.candidates_size(), 1);
    if (response.candidates_size() != 1) continue;
    EXPECT_GT(response.candidates(0).token_ids_size(), 0);
    std::string answer =
        absl::StrCat(response.usage().prompt_token_count(), ":");
    for (const int id : response.candidates(0).token_ids()) {
      absl::StrAppend(&answer, " ", id);
    }
    answers.push_back(absl::StrCat(answer, " ", response.candidates(0).text()));
  }
  return answers;
}

TEST(ServeSafetensors, TokensAreThoseOfTheGgufTwin) {
  const std::string file = testing::WriteTinyModel(Options());
  const std::vector<std::string> expected = Answers(file, 1);
  ASSERT_EQ(expected.size(), Requests().size());
  for (const TinyPacking packing :
       {TinyPacking::kPacked, TinyPacking::kPackedReciprocal}) {
    const std::string directory = testing::WriteTinySafetensors(
        testing::TinySafetensorsModel(Options(), packing), 2);
    // Both halves of the model come from the directory.
    EXPECT_EQ(Answers(directory, 2), expected);
    std::filesystem::remove_all(directory);
  }
  std::filesystem::remove(file);
}

TEST(ServeSafetensors, TheModelIsCalledAfterItsDirectory) {
  const std::string directory = testing::WriteTinySafetensors(
      testing::TinySafetensorsModel(Options(), TinyPacking::kPacked), 1);
  LocalCluster::Options options;
  options.model = directory;
  auto cluster = LocalCluster::Start(options);
  ASSERT_TRUE(cluster.ok()) << cluster.status();
  grpc::ClientContext context;
  SetDeadline(&context);
  v1::GetModelResponse response;
  const grpc::Status status =
      (*cluster)->inference().GetModel(&context, {}, &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(response.model().name(),
            std::filesystem::path(directory).filename().string());
  EXPECT_EQ(response.model().architecture(), "llama");
  EXPECT_EQ(response.model().layer_count(), 4);
  std::filesystem::remove_all(directory);
}

TEST(ServeSafetensors, ADirectoryWithoutATokenizerIsNotServed) {
  const std::string directory = testing::WriteTinySafetensors(
      testing::TinySafetensorsModel(Options(), TinyPacking::kPacked), 1);
  std::filesystem::remove(directory + "/tokenizer.json");
  LocalCluster::Options options;
  options.model = directory;
  const auto cluster = LocalCluster::Start(options);
  ASSERT_FALSE(cluster.ok());
  EXPECT_TRUE(absl::StrContains(cluster.status().message(), "tokenizer.json"))
      << cluster.status();
  std::filesystem::remove_all(directory);
}

}  // namespace
}  // namespace tern
