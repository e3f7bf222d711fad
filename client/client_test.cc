#include "client/client.h"

#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "client/client_fixture.h"
#include "client/fake_cluster.h"
#include "gtest/gtest.h"
#include "util/dev_certs.h"

namespace tern {
namespace {

TEST_F(ClientTest, StreamsAnAnswerPieceByPiece) {
  fake_.on_stream = [](auto* context, auto& request, auto* writer) {
    return StreamPieces(request, {"to ", "be ", "or"}, writer);
  };
  auto client = MustCreate(Options());
  std::vector<std::string> pieces;
  v1::Usage usage;
  std::string id;
  const absl::Status status = client->StreamGenerate(
      Prompt("?"), [&](const v1::StreamGenerateResponse& message) {
        if (message.has_prompt_info()) id = message.prompt_info().request_id();
        if (!message.delta().text().empty()) {
          pieces.push_back(message.delta().text());
        }
        if (message.has_usage()) usage = message.usage();
        return true;
      });
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_EQ(pieces, (std::vector<std::string>{"to ", "be ", "or"}));
  EXPECT_EQ(usage.output_token_count(), 3);
  EXPECT_FALSE(id.empty());
  EXPECT_EQ(fake_.requests()[0].text(), "?");
}

TEST_F(ClientTest, RetriesUnavailableWithGrowingPausesAndNewIds) {
  std::atomic<int> calls{0};
  fake_.on_generate = [&](auto* context, auto& request, auto* response) {
    if (++calls < 4) return Unavailable();
    response->add_candidates()->set_text("at last");
    return grpc::Status::OK;
  };
  auto client = MustCreate(Options());
  const auto response = client->Generate(Prompt("?"));
  ASSERT_TRUE(response.ok()) << response.status();
  EXPECT_EQ(response->candidates(0).text(), "at last");
  EXPECT_EQ(pauses_, (std::vector<absl::Duration>{absl::Milliseconds(100),
                                                  absl::Milliseconds(200),
                                                  absl::Milliseconds(400)}));
  const auto requests = fake_.requests();
  ASSERT_EQ(requests.size(), 4u);
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_TRUE(
        absl::EndsWith(requests[i].request_id(), absl::StrCat("-", i + 1)));
  }
  EXPECT_LE(requests[3].request_id().size(), 128u);
}

TEST_F(ClientTest, PausesAreShortenedAtRandomAndBounded) {
  fake_.on_generate = [](auto...) { return Unavailable(); };
  ClientOptions options = Options();
  options.random = [] { return 0.5; };
  options.max_attempts = 7;
  options.backoff_max = absl::Milliseconds(800);
  auto client = MustCreate(options);
  const absl::Status status = client->Generate(Prompt("?")).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(absl::StrContains(status.message(), "after 7 attempts"));
  EXPECT_EQ(pauses_, (std::vector<absl::Duration>{
                         absl::Milliseconds(75), absl::Milliseconds(150),
                         absl::Milliseconds(300), absl::Milliseconds(600),
                         absl::Milliseconds(600), absl::Milliseconds(600)}));
}

TEST_F(ClientTest, KeepsTheCallersRequestId) {
  fake_.on_generate = [](auto...) { return Unavailable(); };
  auto client = MustCreate(Options());
  v1::GenerateRequest request = Prompt("?");
  request.set_request_id("mine");
  EXPECT_FALSE(client->Generate(request).ok());
  ASSERT_EQ(fake_.requests().size(), 4u);
  for (const auto& seen : fake_.requests()) {
    EXPECT_EQ(seen.request_id(), "mine");
  }
}

TEST_F(ClientTest, RetriesNothingElse) {
  std::atomic<grpc::StatusCode> answer{grpc::StatusCode::OK};
  fake_.on_generate = [&](auto...) { return Error(answer); };
  auto client = MustCreate(Options());
  for (const grpc::StatusCode code :
       {grpc::StatusCode::RESOURCE_EXHAUSTED, grpc::StatusCode::ABORTED,
        grpc::StatusCode::INTERNAL, grpc::StatusCode::INVALID_ARGUMENT,
        grpc::StatusCode::ALREADY_EXISTS}) {
    answer = code;
    const absl::Status status = client->Generate(Prompt("?")).status();
    EXPECT_EQ(static_cast<int>(status.code()), static_cast<int>(code));
    EXPECT_EQ(status.message(), "why");
  }
  EXPECT_TRUE(pauses_.empty());
}

TEST_F(ClientTest, RetriesAStreamThatBrokeBeforeItsFirstToken) {
  std::atomic<int> calls{0};
  fake_.on_stream = [&](auto* context, auto& request, auto* writer) {
    if (++calls == 1) {
      v1::StreamGenerateResponse message;
      message.mutable_prompt_info()->set_request_id(request.request_id());
      writer->Write(message);
      return Unavailable();
    }
    return StreamPieces(request, {"whole"}, writer);
  };
  auto client = MustCreate(Options());
  absl::Status status;
  EXPECT_EQ(Stream(client.get(), Prompt("?"), &status), "whole");
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_NE(fake_.requests()[0].request_id(), fake_.requests()[1].request_id());
}

TEST_F(ClientTest, NeverRepeatsAStreamThatHasBegun) {
  fake_.on_stream = [&](auto* context, auto& request, auto* writer) {
    v1::StreamGenerateResponse message;
    message.mutable_delta()->set_text("half an ");
    writer->Write(message);
    return Unavailable();
  };
  auto client = MustCreate(Options());
  absl::Status status;
  EXPECT_EQ(Stream(client.get(), Prompt("?"), &status), "half an ");
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(fake_.requests().size(), 1u);
}

TEST_F(ClientTest, OfSeveralServersTheOneThatAnswersIsFound) {
  fake_.on_generate = [](auto*, auto&, v1::GenerateResponse* response) {
    response->add_candidates()->set_text("here");
    return grpc::Status::OK;
  };
  FakeCluster other;
  other.on_generate = [](auto...) { return Unavailable(); };
  ClientOptions options = Options();
  options.server = absl::StrCat(other.address(), ", ", fake_.address());
  options.max_attempts = 1;
  auto client = MustCreate(options);
  for (int i = 0; i < 2; ++i) {
    const auto response = client->Generate(Prompt("?"));
    ASSERT_TRUE(response.ok()) << response.status();
    EXPECT_EQ(response->candidates(0).text(), "here");
  }
  // Once found it is stayed with.
  EXPECT_EQ(other.requests().size(), 1u);
  EXPECT_EQ(fake_.requests().size(), 2u);
}

TEST_F(ClientTest, WhatWasThoughtOfThePromptIsABeginning) {
  fake_.on_stream = [&](auto* context, auto& request, auto* writer) {
    v1::StreamGenerateResponse message;
    message.add_prompt_logprobs()->set_logprob(-1);
    writer->Write(message);
    return Unavailable();
  };
  auto client = MustCreate(Options());
  absl::Status status;
  EXPECT_EQ(Stream(client.get(), Prompt("?"), &status), "");
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(fake_.requests().size(), 1u);
}

TEST_F(ClientTest, DoesNotStartAPauseThatOutlastsTheDeadline) {
  fake_.on_generate = [](auto...) { return Unavailable(); };
  ClientOptions options = Options();
  options.max_attempts = 100;
  options.backoff_first = absl::Seconds(20);
  options.backoff_max = absl::Seconds(40);
  auto client = MustCreate(options);
  CallOptions call;
  call.deadline = absl::Seconds(50);
  EXPECT_EQ(client->Generate(Prompt("?"), call).status().code(),
            absl::StatusCode::kUnavailable);
  EXPECT_EQ(pauses_, (std::vector<absl::Duration>{absl::Seconds(20)}));
}

TEST_F(ClientTest, DeadlinesReachTheCluster) {
  fake_.on_generate = [](auto* context, auto& request, auto* response) {
    return WaitForCancellation(context);
  };
  ClientOptions options = Options();
  options.default_deadline = absl::Milliseconds(50);
  auto client = MustCreate(options);
  EXPECT_EQ(client->Generate(Prompt("?")).status().code(),
            absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(fake_.requests().size(), 1u);
}

TEST_F(ClientTest, CancellationEndsACallInProgressAndLaterOnes) {
  fake_.on_stream = [](auto* context, auto& request, auto* writer) {
    return WaitForCancellation(context);
  };
  auto client = MustCreate(Options());
  Cancellation cancellation;
  CallOptions call;
  call.cancellation = &cancellation;
  absl::Status status;
  std::thread caller([&] { Stream(client.get(), Prompt("?"), &status, call); });
  EXPECT_TRUE(fake_.WaitForCalls(1, kPatience));
  cancellation.Cancel();
  caller.join();
  EXPECT_EQ(status.code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(client->Generate(Prompt("?"), call).status().code(),
            absl::StatusCode::kCancelled);
  EXPECT_EQ(fake_.requests().size(), 1u);
}

TEST_F(ClientTest, CancellationEndsAPause) {
  fake_.on_generate = [](auto...) { return Unavailable(); };
  ClientOptions options = Options();
  options.sleep = nullptr;  // The real one.
  options.clock = nullptr;
  options.backoff_first = options.backoff_max = absl::Hours(1);
  auto client = MustCreate(options);
  Cancellation cancellation;
  CallOptions call;
  call.cancellation = &cancellation;
  std::thread canceller([&] {
    fake_.WaitForCalls(1, kPatience);
    cancellation.Cancel();
  });
  EXPECT_EQ(client->Generate(Prompt("?"), call).status().code(),
            absl::StatusCode::kCancelled);
  canceller.join();
}

TEST_F(ClientTest, ACallbackCanEndItsStream) {
  fake_.on_stream = [](auto* context, auto& request, auto* writer) {
    v1::StreamGenerateResponse message;
    message.mutable_delta()->set_text("x");
    writer->Write(message);
    return WaitForCancellation(context);
  };
  auto client = MustCreate(Options());
  EXPECT_EQ(
      client->StreamGenerate(Prompt("?"), [](const auto&) { return false; })
          .code(),
      absl::StatusCode::kCancelled);
}

TEST_F(ClientTest, AsksForTokensModelsAndWorkers) {
  fake_.on_tokenize = [](auto& request, auto* response) {
    response->add_token_ids(static_cast<int>(request.text().size()));
    return grpc::Status::OK;
  };
  fake_.on_detokenize = [](auto& request, auto* response) {
    response->set_text(absl::StrCat(request.token_ids(0)));
    return grpc::Status::OK;
  };
  fake_.on_list_models = [](auto& request, auto* response) {
    response->add_models()->set_name("m");
    return grpc::Status::OK;
  };
  fake_.on_get_model = [](auto& request, auto* response) {
    response->mutable_model()->set_name(request.model());
    return grpc::Status::OK;
  };
  fake_.on_list_workers = [](auto& request, auto* response) {
    response->add_workers()->set_worker_id("w");
    return grpc::Status::OK;
  };
  fake_.on_abort = [](auto& request, auto* response) {
    return request.request_id() == "known" ? grpc::Status::OK
                                           : Error(grpc::StatusCode::NOT_FOUND);
  };
  auto client = MustCreate(Options());
  v1::TokenizeRequest text;
  text.set_text("four");
  EXPECT_EQ(client->Tokenize(text)->token_ids(0), 4);
  v1::DetokenizeRequest tokens;
  tokens.add_token_ids(17);
  EXPECT_EQ(client->Detokenize(tokens)->text(), "17");
  EXPECT_EQ(client->ListModels()->models(0).name(), "m");
  v1::GetModelRequest model;
  model.set_model("n");
  EXPECT_EQ(client->GetModel(model)->model().name(), "n");
  EXPECT_EQ(client->ListWorkers()->workers(0).worker_id(), "w");
  EXPECT_TRUE(client->Abort("known").ok());
  EXPECT_EQ(client->Abort("unknown").code(), absl::StatusCode::kNotFound);
}

TEST_F(ClientTest, AsksTheHealthService) {
  auto client = MustCreate(Options());
  fake_.SetServing("readiness", false);
  EXPECT_TRUE(*client->IsServing("liveness"));
  EXPECT_FALSE(*client->IsServing("readiness"));
  fake_.SetServing("readiness", true);
  EXPECT_TRUE(*client->IsServing("readiness"));
  EXPECT_EQ(client->IsServing("nothing").status().code(),
            absl::StatusCode::kNotFound);
}

TEST_F(ClientTest, RefusesSenselessOptions) {
  ClientOptions options = Options();
  options.max_attempts = 0;
  EXPECT_EQ(Client::Create(options).status().code(),
            absl::StatusCode::kInvalidArgument);
  options = Options();
  options.server = "example.org:7600";
  EXPECT_EQ(Client::Create(options).status().code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST(ClientTls, TheServerMustBeACoordinator) {
  DevCerts certs;
  for (const std::string role : {"coordinator", "worker"}) {
    FakeCluster fake(certs.For(role));
    ClientOptions options;
    options.server = fake.address();
    options.credentials = certs.For("client");
    options.max_attempts = 1;
    auto client = Client::Create(options);
    ASSERT_TRUE(client.ok()) << client.status();
    EXPECT_EQ((*client)->IsServing("liveness").ok(), role == "coordinator");
  }
}

}  // namespace
}  // namespace tern
