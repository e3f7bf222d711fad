// Runs `tern chat` against a fake cluster.

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

namespace tern {
namespace {

class ChatTest : public TernTest {
 protected:
  ChatTest() {
    fake_.on_get_model = [](auto& request, auto* response) {
      v1::Model& model = *response->mutable_model();
      model.set_name("demo");
      model.set_context_length(100);
      model.set_has_chat_template(true);
      return grpc::Status::OK;
    };
    fake_.on_stream = [](auto* context, auto& request, auto* writer) {
      return Answer(request, v1::FINISH_REASON_STOP, 10, writer);
    };
  }

  // "2 messages\n" without its newline, and why it ended.
  static grpc::Status Answer(const v1::GenerateRequest& request,
                             v1::FinishReason reason, int n_prompt,
                             FakeCluster::StreamWriter* writer) {
    v1::StreamGenerateResponse message;
    message.mutable_delta()->set_text(
        absl::StrCat(request.chat().messages_size()));
    writer->Write(message);
    message.mutable_delta()->set_text(" messages");
    message.mutable_delta()->set_finish_reason(reason);
    message.mutable_usage()->set_prompt_token_count(n_prompt);
    message.mutable_usage()->set_output_token_count(5);
    writer->Write(message);
    return grpc::Status::OK;
  }

  // The conversation of call `index`, a line for each message.
  std::string Conversation(int index) {
    const v1::GenerateRequest request = fake_.requests().at(index);
    std::string lines;
    for (const v1::ChatMessage& message : request.chat().messages()) {
      absl::StrAppend(&lines, v1::ChatRole_Name(message.role()).substr(10), ":",
                      message.content(), "\n");
    }
    return lines;
  }
};

TEST_F(ChatTest, KeepsAConversationThroughAPipe) {
  EXPECT_EQ(Tern({"chat"}, "Hi\n\n  Why?  \nAnd now"), 0) << err_;
  EXPECT_EQ(out_, "1 messages\n3 messages\n5 messages\n");
  EXPECT_EQ(err_, "");
  EXPECT_EQ(Conversation(2),
            "USER:Hi\nASSISTANT:1 messages\n"
            "USER:Why?\nASSISTANT:3 messages\nUSER:And now\n");
  EXPECT_FALSE(fake_.requests().at(0).chat().has_add_generation_prompt());
  EXPECT_FALSE(fake_.requests().at(0).sampling().has_seed());
}

TEST_F(ChatTest, TakesTheFlagsOfGenerate) {
  EXPECT_EQ(Tern({"chat", "--seed=7", "--max_tokens=3", "--stop=a",
                  "--model=demo", "--system=Be brief."},
                 "Hi\n"),
            0)
      << err_;
  EXPECT_EQ(Conversation(0), "SYSTEM:Be brief.\nUSER:Hi\n");
  const v1::GenerateRequest request = fake_.requests().at(0);
  EXPECT_EQ(request.sampling().seed(), 7);
  EXPECT_EQ(request.stopping().max_output_tokens(), 3);
  EXPECT_EQ(request.stopping().stop_strings(0), "a");
  EXPECT_EQ(request.model(), "demo");
}

TEST_F(ChatTest, ObeysCommands) {
  EXPECT_EQ(Tern({"chat"},
                 "/system Be brief.\nHi\n/new\nagain\n/reset\n/system\n//new\n"
                 "/help\n/quit\nunheard\n"),
            0)
      << err_;
  EXPECT_EQ(Conversation(0), "SYSTEM:Be brief.\nUSER:Hi\n");
  EXPECT_EQ(Conversation(1), "SYSTEM:Be brief.\nUSER:again\n");
  EXPECT_EQ(Conversation(2), "USER:/new\n");
  EXPECT_EQ(fake_.requests().size(), 3u);
  EXPECT_TRUE(Said("/system TEXT")) << err_;
  EXPECT_EQ(Tern({"chat"}, "/nwe\nunheard\n"), 1);
  EXPECT_TRUE(Said("there is no command /nwe; /help")) << err_;
  EXPECT_EQ(fake_.requests().size(), 3u);
}

TEST_F(ChatTest, SaysThatAModelDoesNotChat) {
  fake_.on_get_model = [](auto& request, auto* response) {
    response->mutable_model()->set_name("demo");
    return grpc::Status::OK;
  };
  EXPECT_EQ(Tern({"chat"}, "Hi\n"), 1);
  EXPECT_TRUE(
      Said("FAILED_PRECONDITION: the model demo takes no "
           "conversations"))
      << err_;
  EXPECT_TRUE(Said("tern generate")) << err_;
  EXPECT_TRUE(fake_.requests().empty());
}

TEST_F(ChatTest, SaysWhyAnAnswerWasCut) {
  fake_.on_stream = [](auto* context, auto& request, auto* writer) {
    const int n_prompt = request.chat().messages_size() == 1 ? 10 : 95;
    return Answer(request, v1::FINISH_REASON_LENGTH, n_prompt, writer);
  };
  EXPECT_EQ(Tern({"chat"}, "Hi\nWhy?\n"), 0) << err_;
  EXPECT_EQ(err_,
            "[The answer was cut after 5 tokens; --max_tokens allows more.]\n"
            "[The answer was cut: the conversation fills the model's context "
            "of 100 tokens; /new starts another.]\n");
}

TEST_F(ChatTest, AnErrorEndsAPipe) {
  fake_.on_stream = [](auto* context, auto& request, auto* writer) {
    if (request.chat().messages_size() == 1) {
      return Answer(request, v1::FINISH_REASON_STOP, 10, writer);
    }
    return grpc::Status(grpc::StatusCode::INVALID_ARGUMENT, "too long");
  };
  EXPECT_EQ(Tern({"chat"}, "Hi\nWhy?\nunheard\n"), 1);
  EXPECT_EQ(out_, "1 messages\n");
  EXPECT_TRUE(
      Said("INVALID_ARGUMENT: too long; the message was taken back, "
           "and /new starts a new conversation"))
      << err_;
  EXPECT_EQ(fake_.requests().size(), 2u);
}

// Prompts, an error that costs its message alone, Ctrl-C, Ctrl-D.
TEST_F(ChatTest, TalksAtATerminal) {
  fake_.on_stream = [](auto* context, auto& request, auto* writer) {
    const std::string text = request.chat().messages().rbegin()->content();
    if (text == "bad") {
      return grpc::Status(grpc::StatusCode::INVALID_ARGUMENT, "a bad word");
    }
    if (text == "long") {
      v1::StreamGenerateResponse message;
      message.mutable_delta()->set_text("for ever");
      writer->Write(message);
      while (!context->IsCancelled()) std::this_thread::yield();
      return grpc::Status::CANCELLED;
    }
    return Answer(request, v1::FINISH_REASON_STOP, 10, writer);
  };
  const Terminal terminal;
  Process process({"chat", "--server=" + fake_.address()}, "", {}, &terminal);
  const auto await = [&process](absl::string_view text) {
    const absl::Time deadline = absl::Now() + kPatience;
    while (!absl::StrContains(process.out(), text)) {
      ASSERT_LT(absl::Now(), deadline) << process.out() << process.err();
    }
  };
  terminal.Type("Hi\n");
  await("1 messages\n");
  terminal.Type("bad\n");
  terminal.Type("long\n");
  await("for ever");
  process.Interrupt();
  terminal.Type("Why?\n");
  await("5 messages\n");
  terminal.Type("\x04");
  EXPECT_EQ(process.Wait(), 0);
  EXPECT_EQ(Conversation(3),
            "USER:Hi\nASSISTANT:1 messages\n"
            "USER:long\nASSISTANT:for ever\nUSER:Why?\n");
  EXPECT_TRUE(absl::StrContains(process.err(), "Talking to demo, up to 100"));
  EXPECT_TRUE(absl::StrContains(process.err(), "a bad word")) << process.err();
  EXPECT_TRUE(absl::StrContains(process.err(), "> ")) << process.err();
}

TEST_F(ChatTest, CtrlCEndsTheProgramWhereNothingIsInProgress) {
  const Terminal terminal;
  Process process({"chat", "--server=" + fake_.address()}, "", {}, &terminal);
  terminal.Type("Hi\n");
  const absl::Time deadline = absl::Now() + kPatience;
  // The second prompt: the answer to the first message has ended.
  while (!absl::EndsWith(process.err(), "> > ")) {
    ASSERT_LT(absl::Now(), deadline) << process.err();
  }
  process.Interrupt();
  EXPECT_EQ(process.Wait(), 130);
}

}  // namespace
}  // namespace tern
