#include "cli/batch_input.h"

#include <unistd.h>

#include <fstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "client/cancellation.h"
#include "gtest/gtest.h"
#include "proto/tern/v1/inference.pb.h"

namespace tern {
namespace {

BatchPrompt MustParse(const std::string& line,
                      const v1::GenerateRequest& defaults = {}) {
  auto prompt = ParseBatchLine(line, 7, defaults);
  EXPECT_TRUE(prompt.ok()) << prompt.status() << " of " << line;
  return prompt.ok() ? *std::move(prompt) : BatchPrompt();
}

TEST(ParseBatchLine, TakesThePromptInEachOfThreeWays) {
  BatchPrompt prompt = MustParse(R"({"id": "a", "prompt": "Gr\u00fc\u00dfe"})");
  EXPECT_EQ(prompt.id, "a");
  EXPECT_EQ(prompt.request.text(), "Grüße");
  EXPECT_FALSE(prompt.request.has_sampling());
  EXPECT_FALSE(prompt.request.has_priority());

  prompt = MustParse(R"( {"token_ids": [3, 0, 2147483647]} )");
  EXPECT_EQ(prompt.id, "7") << "the line's number";
  ASSERT_EQ(prompt.request.token_ids().ids_size(), 3);
  EXPECT_EQ(prompt.request.token_ids().ids(2), 2147483647);

  prompt = MustParse(R"({"messages": [{"role": "system", "content": "s"},
      {"role": "user", "content": "u"}, {"role": "assistant", "content": ""},
      {"content": "t", "role": "tool"}]})");
  const auto& chat = prompt.request.chat();
  ASSERT_EQ(chat.messages_size(), 4);
  EXPECT_EQ(chat.messages(0).role(), v1::CHAT_ROLE_SYSTEM);
  EXPECT_EQ(chat.messages(0).content(), "s");
  EXPECT_EQ(chat.messages(1).role(), v1::CHAT_ROLE_USER);
  EXPECT_EQ(chat.messages(2).role(), v1::CHAT_ROLE_ASSISTANT);
  EXPECT_EQ(chat.messages(3).role(), v1::CHAT_ROLE_TOOL);
}

TEST(ParseBatchLine, FieldsOfALineTakeThePlaceOfTheDefaults) {
  v1::GenerateRequest defaults;
  defaults.set_model("m");
  defaults.mutable_sampling()->set_temperature(0.5);
  defaults.mutable_sampling()->set_seed(4);
  (*defaults.mutable_sampling()->mutable_logit_bias())[1] = 1;
  defaults.mutable_stopping()->add_stop_strings("default");
  defaults.mutable_stopping()->set_max_output_tokens(9);
  const auto request = MustParse(R"({"prompt": "p", "priority": -3,
      "sampling": {"temperature": 0, "topK": 5, "logit_bias": {"8": -2.5},
                   "seed": 9007199254740993},
      "stopping": {"stop_strings": ["x", "y"]},
      "response_options": {"logprobs": 0, "return_token_ids": true}})",
                                 defaults)
                           .request;
  EXPECT_EQ(request.model(), "m");
  EXPECT_EQ(request.priority(), -3);
  EXPECT_TRUE(request.sampling().has_temperature());
  EXPECT_EQ(request.sampling().temperature(), 0);
  EXPECT_EQ(request.sampling().top_k(), 5);
  EXPECT_EQ(request.sampling().seed(), 9007199254740993);
  ASSERT_EQ(request.sampling().logit_bias_size(), 1);
  EXPECT_EQ(request.sampling().logit_bias().at(8), -2.5);
  ASSERT_EQ(request.stopping().stop_strings_size(), 2);
  EXPECT_EQ(request.stopping().stop_strings(0), "x");
  EXPECT_EQ(request.stopping().max_output_tokens(), 9);
  EXPECT_TRUE(request.response_options().has_logprobs());
  EXPECT_TRUE(request.response_options().return_token_ids());

  const auto untouched = MustParse(R"({"prompt": "p"})", defaults).request;
  EXPECT_EQ(untouched.sampling().seed(), 4);
  EXPECT_EQ(untouched.stopping().stop_strings(0), "default");
}

TEST(ParseBatchLine, SaysWhatIsWrong) {
  const std::string deep(100000, '[');
  const std::vector<std::pair<std::string, std::string>> lines = {
      {"", "not JSON"},
      {"prompt", "not JSON: column 1"},
      {R"({"prompt": "p")", "not JSON"},
      {R"({"prompt": "p"} x)", "not JSON"},
      {"{\"prompt\": \"a\xff\"}", "UTF-8"},
      {R"({"prompt": "\ud800"})", "not JSON"},
      {R"("p")", "a JSON object was expected, not string"},
      {"{}", "there is no prompt"},
      {R"({"id": "x"})", "there is no prompt"},
      {R"({"prompt": "p", "token_ids": [1]})", "there are several prompts"},
      {R"({"prompt": 5})", "prompt is to be a string, not number"},
      {R"({"prompt": null})", "prompt is to be a string, not null"},
      {R"({"prompt": "p", "id": 5})", "id is to be a string, not number"},
      {R"({"prompt": "p", "id": ""})", "id has 0 bytes"},
      {absl::StrCat(R"({"prompt": "p", "id": ")", std::string(257, 'i'), "\"}"),
       "id has 257 bytes; it must have 1 to 256"},
      {R"({"prompt": "p", "promt": "q"})", "there is no field \"promt\""},
      {R"({"prompt": "p", "model": "m"})", "there is no field \"model\""},
      {R"({"token_ids": 5})", "token_ids is to be an array"},
      {R"({"token_ids": [1, "2"]})", "token_ids[1] is to be a whole number"},
      {R"({"token_ids": [1.5]})", "not 1.5"},
      {R"({"token_ids": [2147483648]})", "not 2147483648"},
      {R"({"token_ids": [-2147483649]})", "not -2147483649"},
      {R"({"token_ids": [18446744073709551615]})", "token_ids[0]"},
      {R"({"messages": {}})", "messages is to be an array"},
      {R"({"messages": ["hi"]})", "messages[0] is to be an object"},
      {R"({"messages": [{"content": "c"}]})", "messages[0] has no role"},
      {R"({"messages": [{"role": "robot"}]})", "messages[0].role is \"robot\""},
      {R"({"messages": [{"role": "user", "text": "c"}]})",
       "there is no field messages[0].text"},
      {R"({"prompt": "p", "sampling": 5})", "sampling is to be an object"},
      {R"({"prompt": "p", "sampling": {"heat": 1}})", "heat"},
      {R"({"prompt": "p", "sampling": {"temperature": "hot"}})", "sampling: "},
      {R"({"prompt": "p", "stopping": {"max_output_tokens": 1.5}})",
       "stopping: "},
      {R"({"prompt": "p", "priority": 1e3})", "priority is to be a whole"},
      {absl::StrCat(R"({"prompt": "p", "sampling": )", deep), "not JSON"},
      {absl::StrCat(R"({"prompt": "p", "sampling": )", deep,
                    std::string(deep.size(), ']'), "}"),
       "nested deeper than 16 levels"},
  };
  for (const auto& [line, why] : lines) {
    const absl::Status status = ParseBatchLine(line, 1, {}).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << line << ": " << status;
    EXPECT_TRUE(absl::StrContains(status.message(), why))
        << line.substr(0, 200) << ": " << status;
  }
}

class BatchInputTest : public testing::Test {
 protected:
  std::unique_ptr<BatchInput> MustOpen(const std::string& contents) {
    path_ = testing::TempDir() + "/prompts.jsonl";
    std::ofstream(path_, std::ios::binary) << contents;
    auto input = BatchInput::Open(path_, {}, cancellation_);
    EXPECT_TRUE(input.ok()) << input.status();
    return std::move(input).value();
  }

  // The ids, or what is wrong.
  std::string Checked(BatchInput* input) {
    std::string ids;
    const absl::Status status = input->Check(
        cancellation_,
        [&ids](const std::string& id) { absl::StrAppend(&ids, id, " "); });
    return status.ok() ? ids : std::string(status.message());
  }

  Cancellation cancellation_;
  std::string path_;
};

TEST_F(BatchInputTest, IsCheckedFirstAndReadFromTheStartThen) {
  const auto input = MustOpen(
      "{\"prompt\":\"a\"}\r\n\n  \t\n{\"id\":\"x\",\"prompt\":\"b\"}\n"
      "{\"prompt\":\"c\"}");
  EXPECT_EQ(Checked(input.get()), "1 x 5 ");
  EXPECT_EQ(Checked(input.get()), "1 x 5 ");
  BatchPrompt prompt;
  std::string read;
  for (;;) {
    const auto has_prompt = input->Next(&prompt);
    ASSERT_TRUE(has_prompt.ok());
    if (!*has_prompt) break;
    absl::StrAppend(&read, prompt.id, prompt.request.text(), " ");
  }
  EXPECT_EQ(read, "1a xb 5c ");
  EXPECT_TRUE(input->IsFile(path_));
  EXPECT_FALSE(input->IsFile(path_ + "x"));
}

TEST_F(BatchInputTest, AnEmptyFileHasNoPrompts) {
  for (const char* contents : {"", "\n", "\r\n\r\n"}) {
    EXPECT_EQ(Checked(MustOpen(contents).get()), "");
  }
}

TEST_F(BatchInputTest, NamesBadLinesAndDuplicateIds) {
  const auto input = MustOpen(
      "{\"id\":\"3\",\"prompt\":\"a\"}\n{\"promt\":\"b\"}\n{\"prompt\":\"c\"}\n"
      "{\"id\":\"x\",\"prompt\":\"d\"}\n{\"id\":\"x\",\"prompt\":\"d\"}\n");
  const std::string problems = Checked(input.get());
  EXPECT_TRUE(absl::StrContains(
      problems, absl::StrCat(path_, ":2: there is no field \"promt\"")))
      << problems;
  EXPECT_TRUE(absl::StrContains(
      problems,
      absl::StrCat("\n", path_, ":3: the id \"3\" is that of line 1, too")))
      << problems;
  EXPECT_TRUE(absl::StrContains(problems, ":5: the id \"x\" is that of line 4"))
      << problems;
}

TEST_F(BatchInputTest, NamesTenBadLinesAtMost) {
  std::string contents;
  for (int i = 0; i < 1000; ++i) contents += "?\n";
  const std::string problems = Checked(MustOpen(contents).get());
  EXPECT_TRUE(absl::StrContains(problems, ":10: "));
  EXPECT_FALSE(absl::StrContains(problems, ":11: "));
}

TEST_F(BatchInputTest, HasALimitForLines) {
  const auto line = [](size_t size) {
    return absl::StrCat("{\"prompt\":\"", std::string(size, 'x'), "\"}\n");
  };
  constexpr size_t kLimit = 8 << 20;
  EXPECT_EQ(Checked(MustOpen(line(kLimit - 100) + line(1)).get()), "1 2 ");
  const std::string problems =
      Checked(MustOpen(line(1) + line(kLimit) + "?\n").get());
  EXPECT_TRUE(absl::StrContains(problems, ":2: the line has more than 8388608"))
      << problems;
  // Each of these is ten bytes when it is sent.
  std::string ids = "{\"token_ids\":[-1";
  for (int i = 0; i < 1'000'000; ++i) ids += ",-1";
  EXPECT_TRUE(absl::StrContains(Checked(MustOpen(ids + "]}").get()),
                                "the request takes 10000"));
}

TEST_F(BatchInputTest, FilesThatCannotBeReadAreNamed) {
  for (const std::string path : {"/no/such/file", "/"}) {
    const absl::Status status =
        BatchInput::Open(path, {}, cancellation_).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
    EXPECT_TRUE(absl::StrContains(status.message(), path)) << status;
  }
}

// What comes from a pipe can be read twice, and the reader can be stopped.
TEST_F(BatchInputTest, TakesAPipe) {
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  const std::string path = absl::StrCat("/proc/self/fd/", ends[0]);
  std::thread writer([&] {
    for (int i = 0; i < 20000; ++i) {
      const std::string line = absl::StrCat("{\"prompt\":\"", i, "\"}\n");
      EXPECT_EQ(write(ends[1], line.data(), line.size()),
                static_cast<ssize_t>(line.size()));
    }
    close(ends[1]);
  });
  const auto input = BatchInput::Open(path, {}, cancellation_);
  writer.join();
  close(ends[0]);
  ASSERT_TRUE(input.ok()) << input.status();
  for (int pass = 0; pass < 2; ++pass) {
    int64_t n = 0;
    EXPECT_TRUE((*input)
                    ->Check(cancellation_,
                            [&n](const std::string& id) {
                              EXPECT_EQ(id, absl::StrCat(++n));
                            })
                    .ok());
    EXPECT_EQ(n, 20000);
  }
}

TEST_F(BatchInputTest, CanBeInterruptedWhileAPipeSaysNothing) {
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  cancellation_.Cancel();
  const auto input = BatchInput::Open(absl::StrCat("/proc/self/fd/", ends[0]),
                                      {}, cancellation_);
  EXPECT_TRUE(absl::IsCancelled(input.status())) << input.status();
  EXPECT_TRUE(absl::IsCancelled(
      MustOpen("")->Check(cancellation_, [](const std::string&) {})));
  close(ends[0]);
  close(ends[1]);
}

}  // namespace
}  // namespace tern
