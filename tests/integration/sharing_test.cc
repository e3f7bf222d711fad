// What requests share, KV blocks of one pipeline and pipelines of one cluster,
// changes what they cost and never what they answer.

#include <signal.h>

#include <map>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "grpcpp/client_context.h"
#include "gtest/gtest.h"
#include "proto/tern/v1/cluster.pb.h"
#include "proto/tern/v1/inference.pb.h"
#include "tests/integration/local_cluster.h"

namespace tern {
namespace {

constexpr char kScene[] =
    "KING RICHARD III:\nNow is the winter of our discontent\nMade glorious "
    "summer by this sun of York;\nAnd all the clouds that lour'd upon our "
    "house\nIn the deep bosom of the ocean buried.\n\n";

void SetDeadline(grpc::ClientContext* context) {
  context->set_deadline(absl::ToChronoTime(absl::Now() + absl::Seconds(120)));
}

v1::GenerateRequest Request(const std::string& text, int max_tokens) {
  v1::GenerateRequest request;
  request.set_text(text);
  request.mutable_sampling()->set_temperature(0.8f);
  request.mutable_sampling()->set_seed(11);
  request.mutable_stopping()->set_max_output_tokens(max_tokens);
  return request;
}

v1::GenerateResponse Generate(LocalCluster& cluster,
                              const v1::GenerateRequest& request) {
  grpc::ClientContext context;
  SetDeadline(&context);
  v1::GenerateResponse response;
  const grpc::Status status =
      cluster.inference().Generate(&context, request, &response);
  EXPECT_TRUE(status.ok()) << status.error_message() << cluster.Logs();
  return response;
}

std::vector<std::string> Texts(const v1::GenerateResponse& response) {
  std::vector<std::string> texts;
  for (const v1::Candidate& candidate : response.candidates()) {
    texts.push_back(candidate.text());
  }
  return texts;
}

v1::Model Model(LocalCluster& cluster) {
  grpc::ClientContext context;
  SetDeadline(&context);
  v1::GetModelResponse response;
  EXPECT_TRUE(cluster.inference().GetModel(&context, {}, &response).ok());
  return response.model();
}

std::unique_ptr<LocalCluster> StartOrDie(LocalCluster::Options options) {
  auto cluster = LocalCluster::Start(std::move(options));
  EXPECT_TRUE(cluster.ok()) << cluster.status();
  return cluster.ok() ? std::move(*cluster) : nullptr;
}

// Requests that begin alike, with everything that could depend on it.
std::vector<v1::GenerateRequest> AlikeRequests() {
  std::vector<v1::GenerateRequest> requests;
  const std::string scene = kScene;
  requests.push_back(Request(scene, 20));
  requests.push_back(Request(scene, 30));
  requests.push_back(Request(scene + "QUEEN:\n", 20));
  requests.push_back(Request(scene.substr(0, scene.size() / 2), 20));
  v1::GenerateRequest penalised = Request(scene + "QUEEN:\nMy lord,", 30);
  penalised.mutable_sampling()->set_repetition_penalty(1.3f);
  penalised.mutable_sampling()->set_frequency_penalty(0.5f);
  requests.push_back(penalised);
  v1::GenerateRequest likely = Request(scene + "QUEEN:\n", 10);
  likely.mutable_response_options()->set_logprobs(3);
  requests.push_back(likely);
  v1::GenerateRequest several = Request(scene + "GLOUCESTER:\n", 20);
  several.mutable_sampling()->set_sample_count(4);
  requests.push_back(several);
  return requests;
}

TEST(SharedPrefixes, ChangeNoAnswerOnOneStageOrTwo) {
  LocalCluster::Options alone;
  alone.coordinator_flags = {"--prefix_cache=false"};
  auto reference = StartOrDie(alone);
  ASSERT_NE(reference, nullptr);
  std::vector<v1::GenerateResponse> expected;
  for (const auto& request : AlikeRequests()) {
    expected.push_back(Generate(*reference, request));
    EXPECT_EQ(expected.back().usage().cached_prompt_token_count(), 0);
  }
  EXPECT_EQ(Model(*reference).pipelines(0).kv_block_cached_count(), 0);
  reference.reset();

  for (const int n_stages : {1, 2}) {
    LocalCluster::Options options;
    options.stages = n_stages;
    auto cluster = StartOrDie(options);
    ASSERT_NE(cluster, nullptr);
    // Twice: first each finds what those before left, then all of itself.
    for (const bool again : {false, true}) {
      const auto requests = AlikeRequests();
      for (size_t i = 0; i < requests.size(); ++i) {
        const v1::GenerateResponse response = Generate(*cluster, requests[i]);
        EXPECT_EQ(Texts(response), Texts(expected[i])) << "request " << i;
        const int n_prompt = response.usage().prompt_token_count();
        const int n_cached = response.usage().cached_prompt_token_count();
        if (again) {
          EXPECT_EQ(n_cached, (n_prompt - 1) / 16 * 16);
        } else if (i == 0) {
          EXPECT_EQ(n_cached, 0);
        } else if (i == 1) {
          EXPECT_GT(n_cached, 0);
        }
        for (int c = 0; c < response.candidates_size(); ++c) {
          const auto& logprobs = response.candidates(c).logprobs();
          const auto& wanted = expected[i].candidates(c).logprobs();
          ASSERT_EQ(logprobs.size(), wanted.size());
          for (int t = 0; t < logprobs.size(); ++t) {
            EXPECT_EQ(logprobs[t].logprob(), wanted[t].logprob());
          }
        }
      }
    }
    const v1::Model model = Model(*cluster);
    EXPECT_EQ(model.pipelines(0).kv_block_in_use_count(), 0);
    EXPECT_GT(model.pipelines(0).kv_block_cached_count(), 0);
  }
}

TEST(Replicas, ServeABatchTogetherAndOneMayGoAway) {
  LocalCluster::Options options;
  options.workers = 2;
  auto cluster = StartOrDie(options);
  ASSERT_NE(cluster, nullptr);
  const auto n_ready = [&cluster] {
    int n = 0;
    for (const v1::Pipeline& pipeline : Model(*cluster).pipelines()) {
      if (pipeline.state() == v1::PIPELINE_STATE_READY) ++n;
    }
    return n;
  };
  while (n_ready() < 2) {
  }

  const int n_prompts = 60;
  const auto prompt_of = [](int i) {
    // Some end soon, and most are under way then.
    return Request(absl::StrCat("Citizen ", i, ":\n"), 20 + 8 * (i % 30));
  };
  grpc::ClientContext context;
  SetDeadline(&context);
  auto stream = cluster->inference().BatchGenerate(&context);
  std::thread writer([&] {
    for (int i = 0; i < n_prompts; ++i) {
      v1::BatchGenerateRequest request;
      request.set_index(i);
      *request.mutable_request() = prompt_of(i);
      if (!stream->Write(request)) break;
    }
    stream->WritesDone();
  });
  std::map<int, std::vector<std::string>> texts;
  v1::BatchGenerateResponse response;
  while (stream->Read(&response)) {
    ASSERT_TRUE(response.has_response()) << response.error().message();
    EXPECT_TRUE(
        texts.emplace(response.index(), Texts(response.response())).second)
        << "result " << response.index() << " came twice";
    if (texts.size() == 3) {
      // Both serve.
      const v1::Model model = Model(*cluster);
      ASSERT_EQ(model.pipelines_size(), 2);
      EXPECT_GT(model.pipelines(0).kv_block_in_use_count(), 0);
      EXPECT_GT(model.pipelines(1).kv_block_in_use_count(), 0);
      cluster->worker(1).Signal(SIGKILL);
    }
  }
  writer.join();
  EXPECT_TRUE(stream->Finish().ok()) << cluster->Logs();
  EXPECT_EQ(texts.size(), static_cast<size_t>(n_prompts));
  const v1::Model model = Model(*cluster);
  ASSERT_EQ(model.pipelines_size(), 1);
  EXPECT_EQ(model.pipelines(0).kv_block_in_use_count(), 0);
  for (int i = 0; i < n_prompts; ++i) {
    EXPECT_EQ(texts[i], Texts(Generate(*cluster, prompt_of(i)))) << i;
  }
}

}  // namespace
}  // namespace tern
