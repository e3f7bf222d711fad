// Runs the program itself against a fake cluster.

#include <atomic>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "cli/tern_testing.h"
#include "client/fake_cluster.h"
#include "gtest/gtest.h"
#include "util/dev_certs.h"

namespace tern {
namespace {

TEST_F(TernTest, GenerateStreamsTheAnswerToItsOutput) {
  EXPECT_EQ(Tern({"generate", "a prompt"}), 0);
  EXPECT_EQ(out_, "to be\nor\n");
  EXPECT_EQ(err_, "");
  const auto request = fake_.requests().at(0);
  EXPECT_EQ(request.text(), "a prompt");
  // Defaults are the cluster's.
  EXPECT_FALSE(request.sampling().has_temperature());
  EXPECT_FALSE(request.sampling().has_seed());
  EXPECT_FALSE(request.sampling().has_repetition_penalty());
  EXPECT_FALSE(request.sampling().has_sample_count());
  EXPECT_FALSE(request.response_options().has_logprobs());
  EXPECT_FALSE(request.response_options().has_prompt_logprobs());
  EXPECT_FALSE(request.stopping().has_max_output_tokens());
  EXPECT_FALSE(request.request_id().empty());
}

TEST_F(TernTest, GeneratePassesEveryFlagOn) {
  EXPECT_EQ(TernAsIs({"generate",
                      "--server=" + fake_.address(),
                      "--temperature=0",
                      "--top_k=40",
                      "--top_p=0.5",
                      "--min_p=0.25",
                      "--seed=7",
                      "--max_tokens=12",
                      "--stop=a,b",
                      "--stop=\\n",
                      "--stop_token_ids=5,6",
                      "--ignore_eos",
                      "--model=m",
                      "--repetition_penalty=1.5",
                      "--frequency_penalty=-0.5",
                      "--presence_penalty=0.25",
                      "--logit_bias=4:-1.5,9:2",
                      "--min_tokens=3",
                      "--logprobs=0",
                      "--prompt_logprobs=3",
                      "--n=2",
                      "--echo",
                      "--request_id=mine",
                      "--",
                      "--a prompt"}),
            0)
      << err_;
  const auto request = fake_.requests().at(0);
  EXPECT_EQ(request.text(), "--a prompt");
  EXPECT_EQ(request.model(), "m");
  EXPECT_EQ(request.request_id(), "mine");
  EXPECT_TRUE(request.sampling().has_temperature());
  EXPECT_EQ(request.sampling().temperature(), 0);
  EXPECT_EQ(request.sampling().top_k(), 40);
  EXPECT_EQ(request.sampling().top_p(), 0.5);
  EXPECT_EQ(request.sampling().min_p(), 0.25);
  EXPECT_EQ(request.sampling().seed(), 7);
  EXPECT_EQ(request.sampling().repetition_penalty(), 1.5);
  EXPECT_EQ(request.sampling().frequency_penalty(), -0.5);
  EXPECT_EQ(request.sampling().presence_penalty(), 0.25);
  ASSERT_EQ(request.sampling().logit_bias_size(), 2);
  EXPECT_EQ(request.sampling().logit_bias().at(4), -1.5);
  EXPECT_EQ(request.sampling().logit_bias().at(9), 2);
  EXPECT_EQ(request.sampling().sample_count(), 2);
  EXPECT_EQ(request.stopping().min_output_tokens(), 3);
  EXPECT_TRUE(request.response_options().has_logprobs());
  EXPECT_EQ(request.response_options().logprobs(), 0);
  EXPECT_EQ(request.response_options().prompt_logprobs(), 3);
  EXPECT_TRUE(request.response_options().echo());
  EXPECT_EQ(request.stopping().max_output_tokens(), 12);
  ASSERT_EQ(request.stopping().stop_strings_size(), 2);
  EXPECT_EQ(request.stopping().stop_strings(0), "a,b");
  EXPECT_EQ(request.stopping().stop_strings(1), "\n");
  ASSERT_EQ(request.stopping().stop_token_ids_size(), 2);
  EXPECT_EQ(request.stopping().stop_token_ids(1), 6);
  EXPECT_TRUE(request.stopping().ignore_end_of_sequence());
}

TEST_F(TernTest, GenerateReadsThePromptFromAFileOrItsInput) {
  EXPECT_EQ(Tern({"generate"}, "from input\n"), 0);
  const std::string path = absl::StrCat(testing::TempDir(), "/prompt");
  std::ofstream(path) << "from a file";
  EXPECT_EQ(Tern({"generate", "--prompt_file=" + path}), 0);
  EXPECT_EQ(fake_.requests().at(0).text(), "from input\n");
  EXPECT_EQ(fake_.requests().at(1).text(), "from a file");
}

TEST_F(TernTest, GenerateTellsTheSpeedWhenAsked) {
  EXPECT_EQ(Tern({"generate", "--stats", "--seed=9", "--request_id=mine", "?"}),
            0);
  EXPECT_EQ(out_, "to be\nor\n");
  EXPECT_TRUE(absl::StartsWith(err_, "3 tokens, ")) << err_;
  EXPECT_TRUE(Said("first token after ")) << err_;
  EXPECT_TRUE(Said("prompt of 3 tokens, ended by length, seed 9, request mine"))
      << err_;
}

TEST_F(TernTest, GenerateSaysWhereTheArithmeticChanged) {
  fake_.on_stream = [](auto* context, auto& request, auto* writer) {
    v1::StreamGenerateResponse message;
    message.mutable_prompt_info()->set_numerics_id("cpu-1/int8");
    writer->Write(message);
    message.Clear();
    message.mutable_delta()->set_text("to be");
    v1::NumericsChange* change = message.add_numerics_changes();
    change->set_output_token_count(7);
    change->set_numerics_id("cpu-1/stored");
    writer->Write(message);
    return grpc::Status::OK;
  };
  EXPECT_EQ(Tern({"generate", "?"}), 0);
  EXPECT_EQ(out_, "to be\n");
  EXPECT_TRUE(
      Said("behind token 7 the cluster went on with another arithmetic "
           "(cpu-1/stored, begun with cpu-1/int8)"))
      << err_;
}

TEST_F(TernTest, GeneratePrintsIdsWhenAsked) {
  fake_.on_stream = [](auto* context, auto& request, auto* writer) {
    v1::StreamGenerateResponse message;
    for (int id = 0; id < 4; id += 2) {
      message.mutable_delta()->add_token_ids(id);
      message.mutable_delta()->add_token_ids(id + 1);
      writer->Write(message);
      message.Clear();
    }
    return grpc::Status::OK;
  };
  EXPECT_EQ(Tern({"generate", "--print_ids", "?"}), 0);
  EXPECT_EQ(out_, "0 1 2 3\n");
  EXPECT_TRUE(fake_.requests().at(0).response_options().return_token_ids());
}

TEST_F(TernTest, GeneratePrintsSeveralAnswersOneAfterTheOther) {
  fake_.on_stream = [](auto* context, auto& request, auto* writer) {
    const auto write = [writer](int index, const std::string& text, bool ends) {
      v1::StreamGenerateResponse message;
      message.mutable_delta()->set_index(index);
      message.mutable_delta()->set_text(text);
      if (ends) {
        message.mutable_delta()->set_finish_reason(v1::FINISH_REASON_STOP);
      }
      writer->Write(message);
    };
    write(1, "second", false);
    write(0, "fi", false);
    write(2, "third\n", true);
    write(0, "rst", true);
    write(1, " one", true);
    return grpc::Status::OK;
  };
  EXPECT_EQ(Tern({"generate", "--n=3", "?"}), 0);
  EXPECT_EQ(out_,
            "answer 1 of 3:\nfirst\n"
            "answer 2 of 3:\nsecond one\n"
            "answer 3 of 3:\nthird\n");
}

TEST_F(TernTest, GeneratePrintsATableOfLogprobsWhenAsked) {
  fake_.on_stream = [](auto* context, auto& request, auto* writer) {
    v1::StreamGenerateResponse message;
    v1::Candidate& delta = *message.mutable_delta();
    delta.set_text("to\nbe");
    v1::TokenLogprob* token = delta.add_logprobs();
    token->set_token_id(5);
    token->set_piece("to\n");
    token->set_logprob(-0.25f);
    v1::TokenAlternative* other = token->add_alternatives();
    other->set_piece("to\n");
    other->set_logprob(-0.25f);
    other = token->add_alternatives();
    other->set_piece("we");
    other->set_logprob(-3);
    token = delta.add_logprobs();
    token->set_token_id(1234);
    token->set_piece("be");
    token->set_logprob(-12.5f);
    delta.set_finish_reason(v1::FINISH_REASON_LENGTH);
    writer->Write(message);
    return grpc::Status::OK;
  };
  EXPECT_EQ(Tern({"generate", "--logprobs=2", "?"}), 0);
  EXPECT_EQ(
      out_,
      "to\nbe\n"
      "  -0.2500        5  \"to\\n\"  of \"to\\n\" -0.2500, \"we\" -3.0000\n"
      " -12.5000     1234  \"be\"\n");
}

TEST_F(TernTest, GenerateShowsWhatWasThoughtOfThePromptFirst) {
  fake_.on_stream = [](auto* context, auto& request, auto* writer) {
    for (const char* piece : {"not", " to"}) {
      v1::StreamGenerateResponse message;
      v1::TokenLogprob* token = message.add_prompt_logprobs();
      token->set_token_id(5);
      token->set_piece(piece);
      token->set_logprob(-0.25f);
      writer->Write(message);
    }
    v1::StreamGenerateResponse message;
    message.mutable_delta()->set_text("be");
    message.mutable_delta()->set_finish_reason(v1::FINISH_REASON_LENGTH);
    writer->Write(message);
    return grpc::Status::OK;
  };
  EXPECT_EQ(Tern({"generate", "--prompt_logprobs=0", "?"}), 0);
  EXPECT_EQ(out_,
            "  -0.2500        5  \"not\"\n"
            "  -0.2500        5  \" to\"\n"
            "be\n");
}

TEST_F(TernTest, ABrokenAnswerIsKeptAndTheErrorIsASentence) {
  fake_.on_stream = [](auto* context, auto& request, auto* writer) {
    v1::StreamGenerateResponse message;
    message.mutable_delta()->set_text("half");
    writer->Write(message);
    return grpc::Status(grpc::StatusCode::UNAVAILABLE, "the worker is gone");
  };
  EXPECT_EQ(Tern({"generate", "?"}), 3);
  EXPECT_EQ(out_, "half\n");
  EXPECT_TRUE(Said("tern: UNAVAILABLE: the worker is gone")) << err_;
  EXPECT_TRUE(Said("hint: ")) << err_;
}

TEST_F(TernTest, ExitCodesTellTheStatusesApart) {
  const std::vector<std::pair<grpc::StatusCode, int>> codes = {
      {grpc::StatusCode::INVALID_ARGUMENT, 1},
      {grpc::StatusCode::NOT_FOUND, 1},
      {grpc::StatusCode::RESOURCE_EXHAUSTED, 1},
      {grpc::StatusCode::UNAVAILABLE, 3},
      {grpc::StatusCode::DEADLINE_EXCEEDED, 4},
  };
  std::atomic<grpc::StatusCode> answer{grpc::StatusCode::OK};
  fake_.on_stream = [&](auto...) { return grpc::Status(answer, "why"); };
  for (const auto& [code, exit_code] : codes) {
    answer = code;
    EXPECT_EQ(Tern({"generate", "?"}), exit_code) << code;
    EXPECT_EQ(out_, "");
    EXPECT_TRUE(Said("why")) << err_;
  }
}

TEST_F(TernTest, TextThatIsNotUtf8IsNamed) {
  EXPECT_EQ(Tern({"generate", "H\xff"}), 1);
  EXPECT_TRUE(Said("INVALID_ARGUMENT: text is not UTF-8")) << err_;
  EXPECT_EQ(Tern({"generate", "--stop=\xff", "Hi"}), 1);
  EXPECT_TRUE(Said("stop_strings[0] is not UTF-8")) << err_;
  EXPECT_TRUE(fake_.requests().empty());
}

TEST_F(TernTest, NobodyListeningIsUnavailable) {
  // The port of a cluster that is gone.
  const std::string address = FakeCluster().address();
  EXPECT_EQ(TernAsIs({"generate", "?", "--server=" + address}), 3);
  EXPECT_TRUE(Said("tern: UNAVAILABLE")) << err_;
  EXPECT_TRUE(Said(address)) << err_;
}

TEST_F(TernTest, TheServerMayComeFromTheEnvironment) {
  EXPECT_EQ(TernAsIs({"generate", "?"}, "", {"TERN_SERVER=" + fake_.address()}),
            0)
      << err_;
  EXPECT_EQ(out_, "to be\nor\n");
}

TEST_F(TernTest, CtrlCEndsTheRequestInTheClusterToo) {
  std::atomic<bool> cancelled{false};
  fake_.on_stream = [&](auto* context, auto& request, auto* writer) {
    while (!context->IsCancelled()) std::this_thread::yield();
    cancelled = true;
    return grpc::Status::CANCELLED;
  };
  Process process({"generate", "?", "--server=" + fake_.address()});
  ASSERT_TRUE(fake_.WaitForCalls(1, kPatience));
  process.Interrupt();
  EXPECT_EQ(process.Wait(), 130);
  EXPECT_TRUE(absl::StrContains(process.err(), "CANCELLED")) << process.err();
  while (!cancelled) std::this_thread::yield();
}

TEST_F(TernTest, WaitShowsHowFarTheClusterIsAndGoesOn) {
  std::atomic<int> calls{0};
  fake_.on_list_models = [&](auto& request, auto* response) {
    const int call = ++calls;
    if (call == 1) {
      return grpc::Status(grpc::StatusCode::UNAVAILABLE, "not yet");
    }
    auto* pipeline = response->add_models()->add_pipelines();
    pipeline->set_state(call < 4 ? v1::PIPELINE_STATE_LOADING
                                 : v1::PIPELINE_STATE_READY);
    auto* stage = pipeline->add_stages();
    stage->set_worker_id("w");
    stage->set_load_progress(0.6);
    return grpc::Status::OK;
  };
  EXPECT_EQ(Tern({"generate", "--wait=30s", "?"}), 0) << err_;
  EXPECT_EQ(out_, "to be\nor\n");
  // Not a terminal: a line for each change and no more.
  EXPECT_EQ(err_, "loading: stage 1/1 on w 50%\n");
}

TEST_F(TernTest, WaitGivesUp) {
  fake_.on_list_models = [](auto& request, auto* response) {
    response->add_models()->add_pipelines()->set_state(
        v1::PIPELINE_STATE_WAITING);
    return grpc::Status::OK;
  };
  EXPECT_EQ(Tern({"generate", "--wait=1ms", "?"}), 3);
  EXPECT_TRUE(Said("not ready after 1ms (loading: waiting for workers)") ||
              // On a machine so busy that even one call took too long.
              Said("not ready after 1ms (waiting for the coordinator)"))
      << err_;
  EXPECT_TRUE(fake_.requests().empty());
}

TEST_F(TernTest, TokenizeShowsIdsAndPieces) {
  fake_.on_tokenize = [](auto& request, auto* response) {
    EXPECT_EQ(request.text(), "a\n\xc3\xa9");
    EXPECT_TRUE(request.add_special());
    response->add_token_ids(17);
    response->add_pieces("a\n");
    response->add_token_ids(123456);
    response->add_pieces("\xc3\xa9");
    return grpc::Status::OK;
  };
  EXPECT_EQ(Tern({"tokenize"}, "a\n\xc3\xa9"), 0) << err_;
  EXPECT_EQ(out_, "     17  \"a\\n\"\n 123456  \"\xc3\xa9\"\n");
}

TEST_F(TernTest, StatusShowsTheCluster) {
  fake_.on_list_models = [](auto& request, auto* response) {
    response->add_models()->set_name("demo");
    return grpc::Status::OK;
  };
  fake_.on_list_workers = [](auto& request, auto* response) {
    auto* worker = response->add_workers();
    worker->set_worker_id("w-1");
    worker->set_state(v1::WORKER_STATE_LOADING);
    worker->set_why_idle("nobody knows");
    return grpc::Status::OK;
  };
  EXPECT_EQ(Tern({"status"}), 0) << err_;
  EXPECT_TRUE(absl::StrContains(out_, "model demo:")) << out_;
  EXPECT_TRUE(absl::StrContains(out_, "w-1     LOADING")) << out_;
  EXPECT_FALSE(absl::StrContains(out_, "nobody knows")) << out_;
  EXPECT_EQ(Tern({"status", "--why"}), 0) << err_;
  EXPECT_TRUE(absl::StrContains(out_, "w-1 has no stage: nobody knows"))
      << out_;
}

TEST_F(TernTest, DoctorFindsNothingWrongWithAHealthyCluster) {
  fake_.on_list_models = [](auto& request, auto* response) {
    auto* model = response->add_models();
    model->set_name("demo");
    model->add_pipelines()->set_state(v1::PIPELINE_STATE_READY);
    return grpc::Status::OK;
  };
  fake_.on_list_workers = [](auto& request, auto* response) {
    auto* worker = response->add_workers();
    worker->set_worker_id("w-1");
    worker->set_address("127.0.0.1:1");
    worker->set_state(v1::WORKER_STATE_READY);
    worker->mutable_capabilities()->set_thread_count(2);
    worker->mutable_capabilities()->set_thread_placement(
        "not bound: switched off");
    return grpc::Status::OK;
  };
  EXPECT_EQ(Tern({"doctor"}), 0);
  EXPECT_EQ(out_, absl::StrCat(
                      "ok    ", fake_.address(),
                      " answers, with plaintext\n"
                      "ok    model demo takes requests\n"
                      "ok    worker w-1 at 127.0.0.1:1 is READY; threads (2) "
                      "not bound: switched off\n"
                      "all is well\n"));
}

TEST_F(TernTest, DoctorNamesWhatIsWrongAndTheRemedy) {
  fake_.on_list_models = [](auto& request, auto* response) {
    auto* model = response->add_models();
    model->set_name("demo");
    model->add_pipelines()->set_state(v1::PIPELINE_STATE_WAITING);
    return grpc::Status::OK;
  };
  fake_.on_list_workers = [](auto& request, auto* response) {
    auto* worker = response->add_workers();
    worker->set_worker_id("w-1");
    worker->set_state(v1::WORKER_STATE_LOST);
    worker = response->add_workers();
    worker->set_worker_id("w-2");
    worker->set_state(v1::WORKER_STATE_HUNG);
    return grpc::Status::OK;
  };
  EXPECT_EQ(Tern({"doctor"}), 1);
  EXPECT_TRUE(absl::StrContains(out_, "FAIL  model demo: waiting for workers"));
  EXPECT_TRUE(absl::StrContains(out_, "FAIL  worker w-1 at  is LOST")) << out_;
  EXPECT_TRUE(absl::StrContains(out_, "FAIL  worker w-2 at  is HUNG")) << out_;
  EXPECT_TRUE(absl::StrContains(out_, "3 things are wrong")) << out_;
}

TEST_F(TernTest, DoctorSeesAServerThatWantsTls) {
  DevCerts certs;
  FakeCluster secure(certs.For("coordinator"));
  EXPECT_EQ(TernAsIs({"doctor", "--server=" + secure.address()}), 1);
  EXPECT_TRUE(absl::StrContains(out_, "--tls_ca_file")) << out_;
  EXPECT_EQ(TernAsIs({"doctor", "--server=example.org:7600"}), 1);
  EXPECT_TRUE(absl::StrContains(out_, "--insecure")) << out_;
}

TEST_F(TernTest, GeneratesOverMutualTls) {
  DevCerts certs;
  FakeCluster secure(certs.For("coordinator"));
  secure.on_stream = [](auto* context, auto& request, auto* writer) {
    return StreamPieces(request, {"safe"}, writer);
  };
  const CredentialOptions client = certs.For("client");
  EXPECT_EQ(TernAsIs({"generate", "?", "--server=" + secure.address(),
                      "--tls_ca_file=" + client.ca_file,
                      "--tls_cert_file=" + client.cert_file,
                      "--tls_key_file=" + client.key_file}),
            0)
      << err_;
  EXPECT_EQ(out_, "safe\n");
}

TEST_F(TernTest, HealthTellsWhatServesByItsExitCode) {
  fake_.SetServing("readiness", false);
  EXPECT_EQ(Tern({"health", "readiness"}), 1);
  EXPECT_EQ(out_, "not serving\n");
  fake_.SetServing("readiness", true);
  EXPECT_EQ(Tern({"health", "readiness"}), 0);
  EXPECT_EQ(out_, "serving\n");
  EXPECT_EQ(Tern({"health"}), 0);
  EXPECT_EQ(Tern({"health", "nothing"}), 1);
  EXPECT_TRUE(Said("NOT_FOUND")) << err_;
}

TEST_F(TernTest, HealthOfAWorkerNeedsItsName) {
  DevCerts certs;
  FakeCluster worker(certs.For("worker"));
  const CredentialOptions own = certs.For("worker");
  std::vector<std::string> arguments = {"health",
                                        "liveness",
                                        "--server=" + worker.address(),
                                        "--tls_ca_file=" + own.ca_file,
                                        "--tls_cert_file=" + own.cert_file,
                                        "--tls_key_file=" + own.key_file};
  EXPECT_EQ(TernAsIs(arguments), 3);
  arguments.push_back("--peer_name=tern-worker");
  EXPECT_EQ(TernAsIs(arguments), 0) << err_;
}

TEST_F(TernTest, WrongCommandLinesEndWithTwoAndAHint) {
  const std::vector<std::vector<std::string>> wrong = {
      {"generate", "--temperatur=1", "?"},
      {"generate", "--temperature=warm", "?"},
      {"generate", "two", "prompts"},
      {"generate", "--prompt_file=/nowhere", "?"},
      {"generate", "--prompt_file=/nowhere/at/all"},
      {"generate", ""},
      {"generate", "--stop=\\q", "?"},
      {"generate", "--stop_token_ids=five", "?"},
      {"generate", "--logit_bias=5", "?"},
      {"generate", "--logit_bias=5:much", "?"},
      {"generate", "--logit_bias=5:1,5:2", "?"},
      {"chat", "a message"},
      {"chat", "--stop=\\q"},
      {"chat", "--echo"},
      {"status", "extra"},
      {"status", "--top_k=3"},
      {"doctor", "extra"},
      {"health", "two", "services"},
      {"tokenize", "two", "texts"},
      {"frobnicate"},
  };
  for (const auto& arguments : wrong) {
    EXPECT_EQ(TernAsIs(arguments), 2) << arguments[0];
    EXPECT_TRUE(Said("hint: `tern help")) << err_;
    EXPECT_EQ(out_, "");
  }
  EXPECT_TRUE(fake_.requests().empty());
}

TEST_F(TernTest, HelpShowsTheCommandsAndEachItsOwnFlags) {
  EXPECT_EQ(TernAsIs({"help"}), 0);
  for (const char* name :
       {"generate", "chat", "status", "tokenize", "doctor", "health"}) {
    EXPECT_TRUE(absl::StrContains(out_, name)) << out_;
  }
  EXPECT_EQ(TernAsIs({"help", "generate"}), 0);
  const std::string help = out_;
  EXPECT_TRUE(absl::StrContains(help, "--top_p=1\n"));
  EXPECT_TRUE(absl::StrContains(help, "--tls_ca_file="));
  EXPECT_TRUE(absl::StrContains(help, "Exit codes:"));
  EXPECT_EQ(TernAsIs({"generate", "--help"}), 0);
  EXPECT_EQ(out_, help);
  EXPECT_EQ(TernAsIs({"status", "-h"}), 0);
  EXPECT_FALSE(absl::StrContains(out_, "top_p"));
  EXPECT_TRUE(absl::StrContains(out_, "--server="));
  EXPECT_EQ(TernAsIs({}), 2);
  EXPECT_TRUE(absl::StrContains(out_, "usage: tern COMMAND"));
}

}  // namespace
}  // namespace tern
