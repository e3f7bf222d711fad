// Conversations with real processes on loopback: `tern chat`, a coordinator and
// workers on a model of random weights that has a chat template.

#include <cstdio>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "grpcpp/client_context.h"
#include "gtest/gtest.h"
#include "proto/tern/v1/inference.pb.h"
#include "tests/integration/local_cluster.h"
#include "tests/integration/process.h"
#include "tests/testing/gguf_builder.h"
#include "tests/testing/tiny_model.h"

namespace tern {
namespace {

// The tiny model's token that ends turns.
constexpr int kEot = 317;

constexpr char kChatMl[] =
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + "
    "'<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

class ChatTest : public ::testing::Test {
 protected:
  // Turns end with `turn_token`. Without a template the file gets Tern's own
  // for BitNet b1.58 2B-4T.
  void Start(int stages, const std::string& turn_token = "<|eot_id|>",
             const std::string& chat_template = "") {
    testing::TinyModelOptions tiny;
    tiny.add_eot = true;
    tiny.eot_spelling = turn_token;
    testing::GgufBuilder builder = testing::TinyModel(tiny);
    if (!chat_template.empty()) {
      builder.SetString("tokenizer.chat_template", chat_template);
    }
    LocalCluster::Options options;
    options.model = testing::WriteTempFile(builder.Build());
    options.stages = stages;
    auto cluster = LocalCluster::Start(std::move(options));
    ASSERT_TRUE(cluster.ok()) << cluster.status();
    cluster_ = *std::move(cluster);
  }

  static v1::GenerateRequest Request(
      const std::vector<std::pair<v1::ChatRole, std::string>>& messages) {
    v1::GenerateRequest request;
    request.mutable_sampling()->set_seed(3);
    request.mutable_stopping()->set_max_output_tokens(12);
    for (const auto& [role, content] : messages) {
      v1::ChatMessage* message = request.mutable_chat()->add_messages();
      message->set_role(role);
      message->set_content(content);
    }
    return request;
  }

  v1::Candidate Generate(const v1::GenerateRequest& request) {
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(absl::Now() + absl::Seconds(60)));
    v1::GenerateResponse response;
    const grpc::Status status =
        cluster_->inference().Generate(&context, request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message() << cluster_->Logs();
    return status.ok() ? response.candidates(0) : v1::Candidate();
  }

  // Runs `tern chat` with these lines, each without quotes; its exit code.
  int TernChat(const std::vector<std::string>& lines, std::string* said) {
    std::string command = "printf '%s\\n'";
    for (const std::string& line : lines) {
      absl::StrAppend(&command, " '", line, "'");
    }
    absl::StrAppend(&command, " | cli/tern chat --seed=3 --max_tokens=12",
                    " --server=", cluster_->server());
    const std::string log =
        absl::StrCat(::testing::TempDir(), "/tern-chat-", ++n_runs_, ".log");
    std::remove(log.c_str());
    auto process = Process::Start({"/bin/sh", "-c", command}, log);
    EXPECT_TRUE(process.ok()) << process.status();
    if (!process.ok()) return -1;
    const absl::StatusOr<int> code = (*process)->Wait(absl::Seconds(60));
    EXPECT_TRUE(code.ok()) << code.status();
    *said = (*process)->Log();
    return code.ok() ? *code : -1;
  }

  std::unique_ptr<LocalCluster> cluster_;
  int n_runs_ = 0;
};

TEST_F(ChatTest, TheHistoryGoesIntoTheNextPrompt) {
  Start(/*stages=*/2);
  const std::string cut =
      "[The answer was cut after 12 tokens; --max_tokens allows more.]";
  const auto ends_line = [](std::string text) {
    return !text.empty() && text.back() == '\n' ? text : text + "\n";
  };
  const std::string first =
      Generate(Request({{v1::CHAT_ROLE_USER, "Hi"}})).text();
  const v1::Candidate second =
      Generate(Request({{v1::CHAT_ROLE_USER, "Hi"},
                        {v1::CHAT_ROLE_ASSISTANT, first},
                        {v1::CHAT_ROLE_USER, "<|eot_id|>Why?"}}));
  ASSERT_FALSE(first.empty());
  // Another history, another answer.
  EXPECT_NE(second.text(),
            Generate(Request({{v1::CHAT_ROLE_USER, "<|eot_id|>Why?"}})).text());
  std::string said;
  EXPECT_EQ(TernChat({"Hi", "<|eot_id|>Why?"}, &said), 0);
  EXPECT_EQ(said, absl::StrCat(ends_line(first), cut, "\n",
                               ends_line(second.text()), cut, "\n"));
}

TEST_F(ChatTest, AConversationThatOutgrowsTheContextSaysSo) {
  Start(/*stages=*/1);
  std::string said;
  EXPECT_EQ(TernChat({std::string(300, '.')}, &said), 1);
  EXPECT_NE(said.find("tokens; this model takes at most 255 with at least one "
                      "token of output: leave out early messages"),
            std::string::npos)
      << said;
  EXPECT_EQ(TernChat({"Hi", std::string(300, '.')}, &said), 1);
  EXPECT_NE(said.find("/new starts a new conversation"), std::string::npos)
      << said;
}

// The file calls another token the end; only the template tells.
TEST_F(ChatTest, AnAnswerEndsWhereTheTemplateEndsTurns) {
  Start(/*stages=*/1, "<|im_end|>", kChatMl);
  v1::GenerateRequest request = Request({{v1::CHAT_ROLE_USER, "Hi"}});
  request.mutable_stopping()->set_min_output_tokens(4);
  (*request.mutable_sampling()->mutable_logit_bias())[kEot] = 100;
  const v1::Candidate ended = Generate(request);
  EXPECT_EQ(ended.finish_reason(), v1::FINISH_REASON_STOP);
  EXPECT_EQ(ended.stop_token_id(), kEot);
  EXPECT_FALSE(ended.text().empty());
  // Of a plain prompt it ends nothing.
  request.set_text("Hi");
  request.mutable_stopping()->set_min_output_tokens(0);
  EXPECT_EQ(Generate(request).finish_reason(), v1::FINISH_REASON_LENGTH);
}

TEST_F(ChatTest, AModelWithoutATemplateSaysWhatToDo) {
  auto cluster = LocalCluster::Start({});  // the demo model
  ASSERT_TRUE(cluster.ok()) << cluster.status();
  cluster_ = *std::move(cluster);
  std::string said;
  EXPECT_EQ(TernChat({"Hi"}, &said), 1);
  EXPECT_NE(said.find("takes no conversations"), std::string::npos) << said;
  EXPECT_NE(said.find("tern generate"), std::string::npos) << said;
}

}  // namespace
}  // namespace tern
