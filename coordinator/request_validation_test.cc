#include "coordinator/request_validation.h"

#include <cmath>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "gtest/gtest.h"
#include "model/chat_encoder.h"
#include "model/chat_template.h"
#include "model/gguf_reader.h"
#include "model/tokenizer.h"
#include "tests/testing/gguf_builder.h"
#include "tests/testing/tiny_model.h"

namespace tern {
namespace {

using Code = absl::StatusCode;

class RequestValidationTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const testing::Bytes bytes = testing::TinyModelBytes({});
    auto file = GgufReader::FromBytes(bytes);
    ASSERT_TRUE(file.ok()) << file.status();
    auto tokenizer = Tokenizer::FromGguf(**file, 320);
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    tokenizer_ = *std::move(tokenizer);
    model_.name = "tiny";
    model_.config.vocab_size = 320;
    model_.config.context_length = 256;
    model_.tokenizer = tokenizer_.get();
  }

  absl::StatusOr<CheckedRequest> Check(
      const std::function<void(v1::GenerateRequest*)>& change) {
    v1::GenerateRequest request;
    request.set_text("hello");
    change(&request);
    return CheckRequest(request, model_);
  }

  // Expects a refusal whose message has all of `words`.
  void ExpectRefused(Code code, const std::vector<std::string>& words,
                     const std::function<void(v1::GenerateRequest*)>& change) {
    const absl::Status status = Check(change).status();
    EXPECT_EQ(status.code(), code) << status;
    for (const std::string& word : words) {
      EXPECT_NE(std::string(status.message()).find(word), std::string::npos)
          << "no \"" << word << "\" in: " << status;
    }
  }

  std::unique_ptr<Tokenizer> tokenizer_;
  ServedModel model_;
};

using Request = v1::GenerateRequest;

TEST_F(RequestValidationTest, FillsInTheDefaults) {
  const absl::StatusOr<CheckedRequest> checked = Check([](Request*) {});
  ASSERT_TRUE(checked.ok()) << checked.status();
  const SequenceParameters& parameters = checked->parameters;
  EXPECT_EQ(parameters.prompt, tokenizer_->Encode("hello", {}).value());
  EXPECT_EQ(parameters.sampler.temperature, 1);
  EXPECT_EQ(parameters.sampler.top_k, 0);
  EXPECT_EQ(parameters.sampler.top_p, 1);
  EXPECT_EQ(parameters.sampler.min_p, 0);
  EXPECT_EQ(parameters.stop_token_ids, tokenizer_->end_ids());
  // 256, but no more than the context leaves.
  EXPECT_EQ(parameters.max_output_tokens,
            256 - static_cast<int>(parameters.prompt.size()));
  EXPECT_EQ(parameters.priority, 0);
  EXPECT_FALSE(checked->return_token_ids);
  EXPECT_FALSE(checked->request_id.empty());
  EXPECT_GE(checked->seed, 0);
  EXPECT_EQ(parameters.sampler.seed, static_cast<uint64_t>(checked->seed));
}

TEST_F(RequestValidationTest, KeepsWhatIsSet) {
  const absl::StatusOr<CheckedRequest> checked = Check([](Request* r) {
    r->set_request_id("mine");
    r->mutable_token_ids()->add_ids(7);
    r->mutable_sampling()->set_temperature(0);
    r->mutable_sampling()->set_top_k(5);
    r->mutable_sampling()->set_top_p(0.5f);
    r->mutable_sampling()->set_min_p(0.25f);
    r->mutable_sampling()->set_seed(-3);
    r->mutable_stopping()->set_max_output_tokens(9);
    r->mutable_stopping()->add_stop_token_ids(4);
    r->mutable_stopping()->add_stop_token_ids(4);
    r->mutable_stopping()->add_stop_strings("\n");
    r->mutable_stopping()->set_ignore_end_of_sequence(true);
    r->mutable_response_options()->set_return_token_ids(true);
    r->set_priority(-100);
  });
  ASSERT_TRUE(checked.ok()) << checked.status();
  EXPECT_EQ(checked->request_id, "mine");
  EXPECT_EQ(checked->parameters.prompt, std::vector<int32_t>{7});
  EXPECT_EQ(checked->parameters.sampler.temperature, 0);
  EXPECT_EQ(checked->parameters.sampler.top_k, 5);
  EXPECT_EQ(checked->parameters.sampler.top_p, 0.5f);
  EXPECT_EQ(checked->parameters.sampler.min_p, 0.25f);
  EXPECT_EQ(checked->seed, -3);
  EXPECT_EQ(checked->parameters.max_output_tokens, 9);
  EXPECT_EQ(checked->parameters.stop_token_ids, std::vector<int32_t>{4});
  EXPECT_EQ(checked->stop_strings, std::vector<std::string>{"\n"});
  EXPECT_TRUE(checked->return_token_ids);
  EXPECT_EQ(checked->parameters.priority, -100);
}

TEST_F(RequestValidationTest, RefusesPromptsThatAreNone) {
  ExpectRefused(Code::kInvalidArgument, {"no prompt"},
                [](Request* r) { r->clear_prompt(); });
  ExpectRefused(Code::kInvalidArgument, {"text", "empty"},
                [](Request* r) { r->set_text(""); });
  ExpectRefused(Code::kInvalidArgument, {"token_ids", "empty"},
                [](Request* r) { r->mutable_token_ids(); });
  ExpectRefused(Code::kInvalidArgument, {"token_ids.ids[1]", "320"},
                [](Request* r) {
                  r->mutable_token_ids()->add_ids(0);
                  r->mutable_token_ids()->add_ids(320);
                });
  ExpectRefused(Code::kInvalidArgument, {"-1"},
                [](Request* r) { r->mutable_token_ids()->add_ids(-1); });
  ExpectRefused(Code::kInvalidArgument, {"text", "UTF-8", "byte 2"},
                [](Request* r) { r->set_text("ab\xff"); });
  ExpectRefused(
      Code::kInvalidArgument, {"text", "1048577", "1048576"},
      [](Request* r) { r->set_text(std::string((1 << 20) + 1, 'a')); });
}

// The same model with a token that ends turns, and a template.
class ChatValidationTest : public RequestValidationTest {
 protected:
  void SetUp() override {
    RequestValidationTest::SetUp();
    testing::TinyModelOptions options;
    options.add_eot = true;
    options.eot_spelling = "<|im_end|>";
    const testing::Bytes bytes = testing::TinyModelBytes(options);
    auto file = GgufReader::FromBytes(bytes);
    ASSERT_TRUE(file.ok()) << file.status();
    auto tokenizer = Tokenizer::FromGguf(**file, 320);
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    tokenizer_ = *std::move(tokenizer);
    model_.tokenizer = tokenizer_.get();
    UseTemplate(
        "{% for m in messages %}{{ m.role[0] + m.content + '<|im_end|>' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ 'a' }}{% endif %}");
  }

  void UseTemplate(absl::string_view source) {
    auto chat_template = ChatTemplate::Parse(source);
    ASSERT_TRUE(chat_template.ok()) << chat_template.status();
    chat_ = std::make_unique<ChatEncoder>(*std::move(chat_template),
                                          tokenizer_.get());
    model_.chat = chat_.get();
  }

  static void Add(v1::ChatRole role, const std::string& content,
                  v1::GenerateRequest* request) {
    v1::ChatMessage* message = request->mutable_chat()->add_messages();
    message->set_role(role);
    message->set_content(content);
  }

  static constexpr TokenId kEot = 317, kBos = 318, kEos = 319;
  std::unique_ptr<ChatEncoder> chat_;
};

TEST_F(ChatValidationTest, TurnsAConversationIntoAPrompt) {
  const auto conversation = [](Request* r) {
    Add(v1::CHAT_ROLE_SYSTEM, "1", r);
    Add(v1::CHAT_ROLE_USER, "", r);
    Add(v1::CHAT_ROLE_ASSISTANT, "3", r);
    Add(v1::CHAT_ROLE_TOOL, "4", r);
  };
  absl::StatusOr<CheckedRequest> checked = Check(conversation);
  ASSERT_TRUE(checked.ok()) << checked.status();
  EXPECT_EQ(checked->parameters.prompt,
            (std::vector<int32_t>{kBos, 's', '1', kEot, 'u', kEot, 'a', '3',
                                  kEot, 't', '4', kEot, 'a'}));
  checked = Check([&](Request* r) {
    conversation(r);
    r->mutable_chat()->set_add_generation_prompt(false);
    r->mutable_response_options()->set_echo(true);
  });
  ASSERT_TRUE(checked.ok()) << checked.status();
  EXPECT_EQ(checked->parameters.prompt.back(), kEot);
  EXPECT_EQ(checked->echo, "s1ua3t4");
}

TEST_F(ChatValidationTest, AnswersEndWhereTheTemplateEndsATurn) {
  ASSERT_EQ(tokenizer_->end_ids(), std::vector<TokenId>{kEos});
  UseTemplate(
      "{% for m in messages %}{{ m.content + '<|im_end|>' }}{% endfor %}");
  absl::StatusOr<CheckedRequest> checked =
      Check([](Request* r) { Add(v1::CHAT_ROLE_USER, "Hi", r); });
  ASSERT_TRUE(checked.ok()) << checked.status();
  EXPECT_EQ(checked->parameters.stop_token_ids,
            (std::vector<int32_t>{kEot, kEos}));
  checked = Check([](Request* r) {
    Add(v1::CHAT_ROLE_USER, "Hi", r);
    r->mutable_stopping()->set_ignore_end_of_sequence(true);
  });
  ASSERT_TRUE(checked.ok()) << checked.status();
  EXPECT_TRUE(checked->parameters.stop_token_ids.empty());
}

TEST_F(ChatValidationTest, RefusesWhatIsNoConversation) {
  ExpectRefused(Code::kInvalidArgument, {"chat.messages is empty"},
                [](Request* r) { r->mutable_chat(); });
  for (const int role : {0, 5, -1}) {
    ExpectRefused(Code::kInvalidArgument,
                  {absl::StrCat("chat.messages[1].role is ", role),
                   "system, user, assistant or tool"},
                  [role](Request* r) {
                    Add(v1::CHAT_ROLE_USER, "Hi", r);
                    Add(static_cast<v1::ChatRole>(role), "Hi", r);
                  });
  }
  ExpectRefused(Code::kInvalidArgument, {"message 0", "UTF-8", "offset 1"},
                [](Request* r) { Add(v1::CHAT_ROLE_USER, "H\xff", r); });
  ExpectRefused(Code::kInvalidArgument, {"4097 messages", "4096"},
                [](Request* r) {
                  for (int i = 0; i < 4097; ++i) Add(v1::CHAT_ROLE_USER, "", r);
                });
  ExpectRefused(Code::kInvalidArgument, {"1048577 bytes", "1048576"},
                [](Request* r) {
                  Add(v1::CHAT_ROLE_USER, std::string(1 << 19, 'a'), r);
                  Add(v1::CHAT_ROLE_USER, std::string((1 << 19) + 1, 'a'), r);
                });
  ExpectRefused(Code::kInvalidArgument,
                {"the conversation has 255 tokens; this model takes at most "
                 "254",
                 "leave out early messages"},
                [this](Request* r) {
                  model_.config.context_length = 255;
                  Add(v1::CHAT_ROLE_USER, std::string(251, '.'), r);
                });
  UseTemplate("{{ raise_exception('roles must alternate') }}");
  ExpectRefused(Code::kInvalidArgument, {"roles must alternate"},
                [](Request* r) { Add(v1::CHAT_ROLE_USER, "Hi", r); });
}

TEST_F(ChatValidationTest, SaysWhyAModelTakesNoConversation) {
  model_.chat = nullptr;
  model_.no_chat = "it continues text";
  ExpectRefused(Code::kFailedPrecondition, {"it continues text"},
                [](Request* r) { Add(v1::CHAT_ROLE_USER, "Hi", r); });
}

TEST_F(RequestValidationTest, SaysHowLongAPromptMayBe) {
  const auto ids = [](int n) {
    return [n](Request* r) {
      for (int i = 0; i < n; ++i) r->mutable_token_ids()->add_ids(1);
    };
  };
  ExpectRefused(Code::kInvalidArgument,
                {"prompt has 256 tokens; this model takes at most 255 with at "
                 "least one token of output"},
                ids(256));
  const absl::StatusOr<CheckedRequest> longest = Check(ids(255));
  ASSERT_TRUE(longest.ok()) << longest.status();
  EXPECT_EQ(longest->parameters.max_output_tokens, 1);
}

TEST_F(RequestValidationTest, RefusesSamplingOutOfRange) {
  struct Case {
    const char* field;
    const char* range;
    std::function<void(v1::SamplingParameters*)> change;
  };
  using S = v1::SamplingParameters;
  const float nan = std::nanf("");
  const float infinity = std::numeric_limits<float>::infinity();
  const std::vector<Case> cases = {
      {"temperature", "[0, 100]", [=](S* s) { s->set_temperature(nan); }},
      {"temperature", "[0, 100]", [](S* s) { s->set_temperature(-0.1f); }},
      {"temperature", "[0, 100]", [=](S* s) { s->set_temperature(infinity); }},
      {"top_k", "0 to keep all", [](S* s) { s->set_top_k(-1); }},
      {"top_p", "(0, 1]", [](S* s) { s->set_top_p(2); }},
      {"top_p", "(0, 1]", [](S* s) { s->set_top_p(0); }},
      {"top_p", "(0, 1]", [=](S* s) { s->set_top_p(nan); }},
      {"min_p", "[0, 1]", [](S* s) { s->set_min_p(1.5f); }},
      {"min_p", "[0, 1]", [=](S* s) { s->set_min_p(nan); }},
      {"repetition_penalty", "(0, 10]",
       [](S* s) { s->set_repetition_penalty(0); }},
      {"frequency_penalty", "[-2, 2]",
       [](S* s) { s->set_frequency_penalty(3); }},
      {"presence_penalty", "[-2, 2]",
       [=](S* s) { s->set_presence_penalty(nan); }},
      {"logit_bias[3]", "[-100, 100]",
       [](S* s) { (*s->mutable_logit_bias())[3] = 101; }},
      {"logit_bias[3]", "[-100, 100]",
       [=](S* s) { (*s->mutable_logit_bias())[3] = nan; }},
      {"repetition_penalty", "(0, 10]",
       [](S* s) { s->set_repetition_penalty(10.5f); }},
      {"repetition_penalty", "(0, 10]",
       [=](S* s) { s->set_repetition_penalty(nan); }},
      {"sample_count", "[1, 16]", [](S* s) { s->set_sample_count(0); }},
      {"sample_count", "[1, 16]", [](S* s) { s->set_sample_count(17); }},
  };
  for (const Case& c : cases) {
    ExpectRefused(Code::kInvalidArgument,
                  {absl::StrCat("sampling.", c.field), c.range},
                  [&c](Request* r) { c.change(r->mutable_sampling()); });
  }
}

TEST_F(RequestValidationTest, RefusesStoppingOutOfRange) {
  ExpectRefused(
      Code::kInvalidArgument, {"max_output_tokens is 0"},
      [](Request* r) { r->mutable_stopping()->set_max_output_tokens(0); });
  ExpectRefused(
      Code::kInvalidArgument, {"min_output_tokens is -1"},
      [](Request* r) { r->mutable_stopping()->set_min_output_tokens(-1); });
  ExpectRefused(Code::kInvalidArgument, {"stop_strings", "17", "16"},
                [](Request* r) {
                  for (int i = 0; i < 17; ++i) {
                    r->mutable_stopping()->add_stop_strings("x");
                  }
                });
  ExpectRefused(Code::kInvalidArgument, {"stop_strings", "0 bytes"},
                [](Request* r) { r->mutable_stopping()->add_stop_strings(); });
  ExpectRefused(
      Code::kInvalidArgument, {"stop_strings", "257 bytes"}, [](Request* r) {
        r->mutable_stopping()->add_stop_strings(std::string(257, 'x'));
      });
  ExpectRefused(Code::kInvalidArgument, {"stop_token_ids", "65", "64"},
                [](Request* r) {
                  for (int i = 0; i < 65; ++i) {
                    r->mutable_stopping()->add_stop_token_ids(1);
                  }
                });
  ExpectRefused(
      Code::kInvalidArgument, {"stop_token_ids", "320"},
      [](Request* r) { r->mutable_stopping()->add_stop_token_ids(320); });
}

TEST_F(RequestValidationTest, RefusesTheRestOutOfRange) {
  ExpectRefused(Code::kNotFound, {"other", "tiny"},
                [](Request* r) { r->set_model("other"); });
  ExpectRefused(Code::kInvalidArgument, {"256 bytes"},
                [](Request* r) { r->set_model(std::string(256, 'm')); });
  ExpectRefused(Code::kInvalidArgument, {"request_id"},
                [](Request* r) { r->set_request_id(std::string(129, 'r')); });
  ExpectRefused(Code::kInvalidArgument, {"request_id"},
                [](Request* r) { r->set_request_id("a\tb"); });
  ExpectRefused(Code::kInvalidArgument, {"priority is 101", "[-100, 100]"},
                [](Request* r) { r->set_priority(101); });
  ExpectRefused(
      Code::kInvalidArgument, {"logprobs", "[0, 20]"},
      [](Request* r) { r->mutable_response_options()->set_logprobs(21); });
}

TEST_F(RequestValidationTest, TakesWhatChangesTheLogits) {
  const absl::StatusOr<CheckedRequest> checked = Check([](Request* r) {
    v1::SamplingParameters* s = r->mutable_sampling();
    s->set_repetition_penalty(1.25f);
    s->set_frequency_penalty(-2);
    s->set_presence_penalty(2);
    (*s->mutable_logit_bias())[319] = -100;
    (*s->mutable_logit_bias())[0] = 100;
    r->mutable_stopping()->set_max_output_tokens(9);
    r->mutable_stopping()->set_min_output_tokens(9);
  });
  ASSERT_TRUE(checked.ok()) << checked.status();
  const SamplerParameters& sampler = checked->parameters.sampler;
  EXPECT_EQ(sampler.repetition_penalty, 1.25f);
  EXPECT_EQ(sampler.frequency_penalty, -2);
  EXPECT_EQ(sampler.presence_penalty, 2);
  EXPECT_EQ(sampler.logit_bias,
            (std::vector<std::pair<int32_t, float>>{{0, 100}, {319, -100}}));
  EXPECT_EQ(sampler.logprobs, -1);
  EXPECT_EQ(checked->parameters.min_output_tokens, 9);
  EXPECT_EQ(checked->sample_count, 1);
  EXPECT_EQ(checked->echo, "");
}

TEST_F(RequestValidationTest, TakesWhatIsAskedOfTheResponse) {
  absl::StatusOr<CheckedRequest> checked = Check([](Request* r) {
    r->mutable_sampling()->set_sample_count(16);
    r->mutable_response_options()->set_logprobs(20);
    r->mutable_response_options()->set_prompt_logprobs(20);
    r->mutable_response_options()->set_echo(true);
  });
  ASSERT_TRUE(checked.ok()) << checked.status();
  EXPECT_EQ(checked->sample_count, 16);
  EXPECT_EQ(checked->parameters.sampler.logprobs, 20);
  EXPECT_EQ(checked->parameters.sampler.prompt_logprobs, 20);
  EXPECT_EQ(checked->echo, "hello");
  // Ids have the text that they stand for, special ones none.
  const std::vector<int32_t> ids = tokenizer_->Encode("abc", {}).value();
  checked = Check([&ids](Request* r) {
    for (const int32_t id : ids) r->mutable_token_ids()->add_ids(id);
    r->mutable_response_options()->set_logprobs(0);
    r->mutable_response_options()->set_echo(true);
  });
  ASSERT_TRUE(checked.ok()) << checked.status();
  EXPECT_EQ(checked->parameters.sampler.logprobs, 0);
  EXPECT_EQ(checked->parameters.sampler.prompt_logprobs, -1);
  EXPECT_EQ(checked->echo, "abc");
}

TEST_F(RequestValidationTest, RefusesWhatNoAnswerCouldHold) {
  model_.config.context_length = 1 << 20;
  ExpectRefused(Code::kInvalidArgument,
                {"logprobs is 20", "16 answers", "1000", "262144"},
                [](Request* r) {
                  r->mutable_sampling()->set_sample_count(16);
                  r->mutable_stopping()->set_max_output_tokens(1000);
                  r->mutable_response_options()->set_logprobs(20);
                });
  const auto set_ids = [](int n, Request* r) {
    for (int i = 0; i < n; ++i) r->mutable_token_ids()->add_ids(7);
    r->mutable_response_options()->set_prompt_logprobs(20);
  };
  ExpectRefused(Code::kInvalidArgument,
                {"prompt_logprobs is 20", "12484 tokens", "262164", "262144"},
                [&](Request* r) { set_ids(12484, r); });
  EXPECT_TRUE(Check([&](Request* r) { set_ids(12483, r); }).ok());
  // Both lists are in one answer.
  ExpectRefused(Code::kInvalidArgument,
                {"prompt_logprobs is 20", "262143", "the answer's 2"},
                [&](Request* r) {
                  set_ids(12483, r);
                  r->mutable_stopping()->set_max_output_tokens(2);
                  r->mutable_response_options()->set_logprobs(0);
                });
  ExpectRefused(Code::kInvalidArgument, {"echo", "300000", "16", "4194304"},
                [](Request* r) {
                  r->set_text(std::string(300000, 'a'));
                  r->mutable_sampling()->set_sample_count(16);
                  r->mutable_response_options()->set_echo(true);
                });
}

TEST_F(RequestValidationTest, RefusesBiasesAndMinimaThatCannotBe) {
  ExpectRefused(Code::kInvalidArgument, {"logit_bias", "320", "[0, 320)"},
                [](Request* r) {
                  (*r->mutable_sampling()->mutable_logit_bias())[320] = 1;
                });
  ExpectRefused(Code::kInvalidArgument, {"logit_bias", "-1"}, [](Request* r) {
    (*r->mutable_sampling()->mutable_logit_bias())[-1] = 1;
  });
  ExpectRefused(Code::kInvalidArgument, {"logit_bias", "1025", "1024"},
                [](Request* r) {
                  for (int i = 0; i < 1025; ++i) {
                    (*r->mutable_sampling()->mutable_logit_bias())[i] = 1;
                  }
                });
  // The default of max_output_tokens counts too.
  ExpectRefused(
      Code::kInvalidArgument, {"min_output_tokens is 257", "256"},
      [](Request* r) { r->mutable_stopping()->set_min_output_tokens(257); });
}

}  // namespace
}  // namespace tern
