// Every parameter of a request, on real processes: what it promises is seen in
// the answer, and it survives the loss of the worker that keeps its state.

#include <signal.h>

#include <algorithm>
#include <map>
#include <memory>
#include <set>
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

namespace tern {
namespace {

void SetDeadline(grpc::ClientContext* context) {
  context->set_deadline(absl::ToChronoTime(absl::Now() + absl::Seconds(60)));
}

v1::GenerateRequest Greedy(const std::string& text, int max_tokens) {
  v1::GenerateRequest request;
  request.set_text(text);
  request.mutable_sampling()->set_temperature(0);
  request.mutable_stopping()->set_max_output_tokens(max_tokens);
  request.mutable_response_options()->set_return_token_ids(true);
  return request;
}

// What a stream gave in the end, put together by index.
struct Answer {
  grpc::Status status;
  std::map<int, v1::Candidate> candidates;
  std::vector<v1::TokenLogprob> prompt_logprobs;
  v1::Usage usage;
  int n_changes = 0;  // messages about another candidate than the one before
};

template <typename Then>
Answer Stream(LocalCluster& cluster, const v1::GenerateRequest& request,
              int after, Then then) {
  grpc::ClientContext context;
  SetDeadline(&context);
  v1::StreamGenerateRequest wrapped;
  *wrapped.mutable_request() = request;
  auto reader = cluster.inference().StreamGenerate(&context, wrapped);
  Answer answer;
  v1::StreamGenerateResponse message;
  int last_index = -1;
  for (int i = 0; reader->Read(&message); ++i) {
    if (message.has_usage()) answer.usage = message.usage();
    for (const v1::TokenLogprob& token : message.prompt_logprobs()) {
      EXPECT_TRUE(answer.candidates.empty()) << "the prompt comes first";
      answer.prompt_logprobs.push_back(token);
    }
    if (message.has_delta()) {
      v1::Candidate delta = message.delta();
      v1::Candidate& whole = answer.candidates[delta.index()];
      EXPECT_EQ(whole.finish_reason(), v1::FINISH_REASON_UNSPECIFIED)
          << "something came after the end of candidate " << delta.index();
      answer.n_changes += last_index >= 0 && delta.index() != last_index;
      last_index = delta.index();
      const std::string text = whole.text() + delta.text();
      whole.MergeFrom(delta);
      whole.set_text(text);
    }
    if (i == after) then();
  }
  answer.status = reader->Finish();
  return answer;
}

Answer Stream(LocalCluster& cluster, const v1::GenerateRequest& request) {
  return Stream(cluster, request, -1, [] {});
}

std::vector<int> TokensOf(const v1::Candidate& candidate) {
  return {candidate.token_ids().begin(), candidate.token_ids().end()};
}

// Two stages, so that the state of the last one is tested as such.
class SamplingTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    LocalCluster::Options options;
    options.stages = 2;
    auto cluster = LocalCluster::Start(options);
    ASSERT_TRUE(cluster.ok()) << cluster.status();
    cluster_ = cluster->release();
  }
  static void TearDownTestSuite() {
    delete cluster_;
    cluster_ = nullptr;
  }

  void SetUp() override { ASSERT_NE(cluster_, nullptr); }

  // The one candidate of an answer that must be one.
  static v1::Candidate Only(const v1::GenerateRequest& request) {
    Answer answer = Stream(*cluster_, request);
    EXPECT_TRUE(answer.status.ok()) << answer.status.error_message();
    EXPECT_EQ(answer.candidates.size(), 1u);
    return answer.candidates[0];
  }

  static v1::GenerateResponse Unary(const v1::GenerateRequest& request) {
    grpc::ClientContext context;
    SetDeadline(&context);
    v1::GenerateResponse response;
    const grpc::Status status =
        cluster_->inference().Generate(&context, request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response;
  }

  static int BlocksInUse() {
    grpc::ClientContext context;
    SetDeadline(&context);
    v1::GetModelResponse response;
    EXPECT_TRUE(cluster_->inference().GetModel(&context, {}, &response).ok());
    return response.model().pipelines(0).kv_block_in_use_count();
  }

  static LocalCluster* cluster_;
};
LocalCluster* SamplingTest::cluster_ = nullptr;

// Frequency, presence and bias only shift logits, so that the alternatives'
// log-probabilities say which token must win.
TEST_F(SamplingTest, ThePenalisedAnswerIsTheOneThatTheLogprobsPredict) {
  v1::GenerateRequest request = Greedy("ROMEO:\n", 80);
  const std::vector<int> plain = TokensOf(Only(request));
  request.mutable_response_options()->set_logprobs(20);
  v1::SamplingParameters& sampling = *request.mutable_sampling();
  struct Case {
    float frequency, presence, bias;
  };
  for (const Case& c : {Case{0.6f, 0, 0}, Case{0, 1.5f, 0}, Case{-0.5f, 0, 0},
                        Case{0, 0, -2}, Case{0.4f, 0.8f, 1}}) {
    sampling.set_frequency_penalty(c.frequency);
    sampling.set_presence_penalty(c.presence);
    sampling.clear_logit_bias();
    if (c.bias != 0) (*sampling.mutable_logit_bias())[plain[2]] = c.bias;
    const v1::Candidate candidate = Only(request);
    EXPECT_NE(TokensOf(candidate), plain);
    std::map<int, int> counts;
    int n_turned = 0;
    for (int i = 0; i < candidate.logprobs_size(); ++i) {
      const v1::TokenLogprob& token = candidate.logprobs(i);
      const auto value = [&](int id, float logprob) {
        const int count = counts.count(id) > 0 ? counts[id] : 0;
        return logprob - c.frequency * count - (count > 0 ? c.presence : 0) +
               (id == plain[2] ? c.bias : 0);
      };
      for (const v1::TokenAlternative& other : token.alternatives()) {
        EXPECT_GE(value(token.token_id(), token.logprob()) + 1e-3,
                  value(other.token_id(), other.logprob()))
            << "token " << i;
      }
      n_turned += token.token_id() != token.alternatives(0).token_id();
      ++counts[token.token_id()];
    }
    EXPECT_GT(n_turned, 0) << c.frequency << " " << c.presence << " " << c.bias;
  }
}

TEST_F(SamplingTest, RepetitionPenaltyKeepsFromRepeating) {
  v1::GenerateRequest request = Greedy("ROMEO:\nO love, O love, O love,", 40);
  const std::vector<int> plain = TokensOf(Only(request));
  request.mutable_sampling()->set_repetition_penalty(10);
  const std::vector<int> penalised = TokensOf(Only(request));
  const std::set<int> distinct(penalised.begin(), penalised.end());
  EXPECT_LT(std::set<int>(plain.begin(), plain.end()).size(), plain.size());
  EXPECT_GT(distinct.size(), std::set<int>(plain.begin(), plain.end()).size());
  // The prompt counts: its tokens are held back from the first token on.
  request = Greedy("ROMEO:\n", 1);
  const int first = TokensOf(Only(request))[0];
  v1::GenerateRequest ids = request;
  ids.mutable_token_ids()->add_ids(first);
  v1::GenerateRequest penalised_ids = ids;
  penalised_ids.mutable_sampling()->set_repetition_penalty(10);
  penalised_ids.mutable_stopping()->set_max_output_tokens(20);
  for (const int token : TokensOf(Only(penalised_ids))) {
    EXPECT_NE(token, first);
  }
}

TEST_F(SamplingTest, BiasForcesAndForbidsTokens) {
  v1::GenerateRequest request = Greedy("ROMEO:\n", 12);
  const std::vector<int> plain = TokensOf(Only(request));
  (*request.mutable_sampling()->mutable_logit_bias())[plain[5]] = 100;
  EXPECT_EQ(TokensOf(Only(request)), std::vector<int>(12, plain[5]));
  (*request.mutable_sampling()->mutable_logit_bias())[plain[5]] = -100;
  request.mutable_sampling()->set_temperature(2);
  for (const int token : TokensOf(Only(request))) EXPECT_NE(token, plain[5]);
}

// At a temperature that makes nearly all tokens alike, each way to drop the
// unlikely ones leaves the likeliest alone.
TEST_F(SamplingTest, TruncationLeavesTheLikeliest) {
  const std::vector<int> greedy = TokensOf(Only(Greedy("ROMEO:\n", 30)));
  v1::GenerateRequest request = Greedy("ROMEO:\n", 30);
  v1::SamplingParameters& sampling = *request.mutable_sampling();
  sampling.set_temperature(50);
  sampling.set_seed(9);
  const std::vector<int> hot = TokensOf(Only(request));
  const std::set<int> in_greedy(greedy.begin(), greedy.end());
  EXPECT_LT(std::count_if(hot.begin(), hot.end(),
                          [&](int id) { return in_greedy.count(id) > 0; }),
            15);
  sampling.set_top_k(1);
  EXPECT_EQ(TokensOf(Only(request)), greedy);
  sampling.clear_top_k();
  sampling.set_top_p(1e-4f);
  EXPECT_EQ(TokensOf(Only(request)), greedy);
  sampling.clear_top_p();
  sampling.set_min_p(1);
  EXPECT_EQ(TokensOf(Only(request)), greedy);
}

TEST_F(SamplingTest, TheEndOfTheTextEndsTheAnswerUnlessIgnored) {
  constexpr int kEndOfText = 1023;  // of the demo model
  v1::GenerateRequest request = Greedy("ROMEO:\n", 6);
  (*request.mutable_sampling()->mutable_logit_bias())[kEndOfText] = 100;
  const v1::Candidate ended = Only(request);
  EXPECT_EQ(ended.finish_reason(), v1::FINISH_REASON_STOP);
  EXPECT_EQ(ended.token_ids_size(), 0);
  request.mutable_stopping()->set_ignore_end_of_sequence(true);
  const v1::Candidate ignored = Only(request);
  EXPECT_EQ(ignored.finish_reason(), v1::FINISH_REASON_LENGTH);
  EXPECT_EQ(TokensOf(ignored), std::vector<int>(6, kEndOfText));
}

TEST_F(SamplingTest, NothingEndsTheAnswerBeforeItsMinimum) {
  v1::GenerateRequest request = Greedy("ROMEO:\n", 60);
  const std::vector<int> plain = TokensOf(Only(request));
  request.mutable_stopping()->add_stop_token_ids(plain[3]);
  const size_t stopped = TokensOf(Only(request)).size();
  EXPECT_LT(stopped, 4u);
  request.mutable_stopping()->set_min_output_tokens(20);
  const std::vector<int> longer = TokensOf(Only(request));
  EXPECT_GE(longer.size(), 20u);
  EXPECT_EQ(std::count(longer.begin(), longer.end(), plain[3]), 0);

  // Stop strings, in whatever pieces the text comes.
  request = Greedy("ROMEO:\n", 60);
  request.mutable_stopping()->add_stop_strings("e");
  const v1::Candidate early = Only(request);
  EXPECT_LT(early.token_ids_size(), 15);
  request.mutable_stopping()->set_min_output_tokens(15);
  const v1::Candidate late = Only(request);
  EXPECT_GE(late.token_ids_size(), 15);
  EXPECT_TRUE(absl::StartsWith(late.text(), early.text() + "e"));
  EXPECT_EQ(late.stop_string(), "e");
  const v1::GenerateResponse unary = Unary(request);
  EXPECT_EQ(unary.candidates(0).text(), late.text());
  EXPECT_EQ(unary.candidates(0).stop_string(), "e");
}

TEST_F(SamplingTest, LogprobsKeepStepWithTheTokens) {
  v1::GenerateRequest request = Greedy("JULIET:\n", 60);
  request.mutable_response_options()->set_logprobs(3);
  const v1::Candidate whole = Only(request);
  ASSERT_EQ(whole.token_ids_size(), 60);
  ASSERT_EQ(whole.logprobs_size(), 60);
  std::string text;
  for (int i = 0; i < 60; ++i) {
    const v1::TokenLogprob& token = whole.logprobs(i);
    EXPECT_EQ(token.token_id(), whole.token_ids(i));
    ASSERT_EQ(token.alternatives_size(), 3);
    EXPECT_EQ(token.alternatives(0).token_id(), token.token_id());
    EXPECT_EQ(token.alternatives(0).logprob(), token.logprob());
    EXPECT_GE(token.alternatives(0).logprob(), token.alternatives(1).logprob());
    EXPECT_LT(token.logprob(), 0);
    text += token.piece();
  }
  EXPECT_EQ(text, whole.text());

  // A stop string in the middle: what the cluster made beyond it is dropped,
  // of the text as of the log-probabilities.
  const std::string stop = whole.text().substr(whole.text().size() / 2, 4);
  request.mutable_stopping()->add_stop_strings(stop);
  for (const v1::Candidate& stopped :
       {Only(request), Unary(request).candidates(0)}) {
    EXPECT_EQ(stopped.stop_string(), stop);
    ASSERT_EQ(stopped.logprobs_size(), stopped.token_ids_size());
    ASSERT_LT(stopped.logprobs_size(), 60);
    std::string pieces;
    for (int i = 0; i < stopped.logprobs_size(); ++i) {
      EXPECT_EQ(stopped.logprobs(i).SerializeAsString(),
                whole.logprobs(i).SerializeAsString());
      pieces += stopped.logprobs(i).piece();
    }
    EXPECT_TRUE(absl::StartsWith(pieces, stopped.text() + stop));
  }

  // Without alternatives, at a temperature: still the model's own.
  request = Greedy("JULIET:\n", 1);
  request.mutable_sampling()->set_temperature(3);
  request.mutable_response_options()->set_logprobs(0);
  (*request.mutable_sampling()->mutable_logit_bias())[whole.token_ids(0)] = 100;
  const v1::Candidate hot = Only(request);
  ASSERT_EQ(hot.logprobs_size(), 1);
  EXPECT_EQ(hot.logprobs(0).alternatives_size(), 0);
  EXPECT_EQ(hot.logprobs(0).logprob(), whole.logprobs(0).logprob());
}

// A text that the model has written, to be scored: its tokens with those of the
// prompt, and what the model thought of them when it wrote them.
struct Written {
  v1::GenerateRequest scoring;
  std::vector<v1::TokenLogprob> logprobs;  // of the last tokens
};

Written Write(LocalCluster& cluster, int max_tokens) {
  v1::GenerateRequest request = Greedy("", max_tokens);
  for (const int id : {30, 31, 32, 33, 34}) {
    request.mutable_token_ids()->add_ids(id);
  }
  // Hot enough to choose unlikely tokens as well.
  request.mutable_sampling()->set_temperature(1.5f);
  request.mutable_sampling()->set_seed(11);
  request.mutable_stopping()->set_ignore_end_of_sequence(true);
  request.mutable_response_options()->set_logprobs(4);
  const Answer answer = Stream(cluster, request);
  EXPECT_TRUE(answer.status.ok()) << answer.status.error_message();
  const v1::Candidate& candidate = answer.candidates.at(0);
  Written written;
  written.scoring = Greedy("", 2);
  *written.scoring.mutable_token_ids() = request.token_ids();
  for (const int id : candidate.token_ids()) {
    written.scoring.mutable_token_ids()->add_ids(id);
  }
  written.scoring.mutable_response_options()->set_prompt_logprobs(4);
  written.logprobs = {candidate.logprobs().begin(), candidate.logprobs().end()};
  EXPECT_EQ(written.logprobs.size(), static_cast<size_t>(max_tokens));
  return written;
}

template <typename Tokens>
void ExpectScores(const Tokens& scores, const Written& written) {
  const int n_prompt = written.scoring.token_ids().ids_size();
  ASSERT_EQ(static_cast<int>(scores.size()), n_prompt - 1);
  for (int i = 0; i + 1 < n_prompt; ++i) {
    EXPECT_EQ(scores.at(i).token_id(), written.scoring.token_ids().ids(i + 1));
    EXPECT_EQ(scores.at(i).alternatives_size(), 4);
  }
  const int n = static_cast<int>(written.logprobs.size());
  for (int i = 0; i < n; ++i) {
    EXPECT_EQ(scores.at(n_prompt - 1 - n + i).SerializeAsString(),
              written.logprobs[i].SerializeAsString())
        << "token " << i << " of " << n;
  }
}

// A text is as likely when it is a prompt as when it was written.
TEST_F(SamplingTest, PromptsAreScoredAsTheyWouldBeWritten) {
  const Written written = Write(*cluster_, 150);
  v1::GenerateRequest request = written.scoring;
  const Answer first = Stream(*cluster_, request);
  ASSERT_TRUE(first.status.ok()) << first.status.error_message();
  ExpectScores(first.prompt_logprobs, written);
  EXPECT_EQ(first.usage.cached_prompt_token_count(), 0);

  // The text is in the cache, which changes nothing.
  v1::GenerateRequest plain = request;
  plain.mutable_response_options()->clear_prompt_logprobs();
  const Answer cached = Stream(*cluster_, plain);
  EXPECT_GT(cached.usage.cached_prompt_token_count(), 100);
  EXPECT_TRUE(cached.prompt_logprobs.empty());
  EXPECT_EQ(TokensOf(cached.candidates.at(0)),
            TokensOf(first.candidates.at(0)));
  const v1::GenerateResponse unary = Unary(request);
  ExpectScores(unary.prompt_logprobs(), written);
  EXPECT_EQ(TokensOf(unary.candidates(0)), TokensOf(first.candidates.at(0)));

  // Once for several answers, whose own log-probabilities come as well.
  request.mutable_sampling()->set_sample_count(3);
  request.mutable_response_options()->set_logprobs(1);
  const Answer several = Stream(*cluster_, request);
  ASSERT_TRUE(several.status.ok()) << several.status.error_message();
  ExpectScores(several.prompt_logprobs, written);
  ASSERT_EQ(several.candidates.size(), 3u);
  EXPECT_EQ(several.candidates.at(2).logprobs_size(), 2);

  grpc::ClientContext context;
  SetDeadline(&context);
  auto stream = cluster_->inference().BatchGenerate(&context);
  v1::BatchGenerateRequest batch;
  *batch.mutable_request() = request;
  EXPECT_TRUE(stream->Write(batch));
  stream->WritesDone();
  v1::BatchGenerateResponse result;
  ASSERT_TRUE(stream->Read(&result));
  ExpectScores(result.response().prompt_logprobs(), written);
  EXPECT_EQ(result.response().candidates_size(), 3);
  EXPECT_FALSE(stream->Read(&result));
  EXPECT_TRUE(stream->Finish().ok());
}

v1::GenerateRequest Several(int n, int max_tokens) {
  v1::GenerateRequest request = Greedy("First Citizen:\n", max_tokens);
  request.mutable_sampling()->set_temperature(1);
  request.mutable_sampling()->set_seed(77);
  request.mutable_sampling()->set_sample_count(n);
  return request;
}

TEST_F(SamplingTest, SeveralAnswersAreDrawnForOnePrompt) {
  v1::GenerateRequest request = Several(4, 50);
  // Ends them at different places.
  request.mutable_stopping()->add_stop_strings(".");
  const Answer answer = Stream(*cluster_, request);
  ASSERT_TRUE(answer.status.ok()) << answer.status.error_message();
  ASSERT_EQ(answer.candidates.size(), 4u);
  EXPECT_GT(answer.n_changes, 4) << "the candidates did not take turns";
  std::set<std::string> texts;
  int n_tokens = 0;
  for (const auto& [index, candidate] : answer.candidates) {
    EXPECT_NE(candidate.finish_reason(), v1::FINISH_REASON_UNSPECIFIED);
    texts.insert(candidate.text());
    n_tokens += candidate.token_ids_size();
  }
  EXPECT_EQ(texts.size(), 4u);
  EXPECT_EQ(answer.usage.output_token_count(), n_tokens);

  // The first is the answer of a request for one; the prompt counts once.
  v1::GenerateRequest one = request;
  one.mutable_sampling()->set_sample_count(1);
  const Answer single = Stream(*cluster_, one);
  EXPECT_EQ(single.candidates.at(0).text(), answer.candidates.at(0).text());
  EXPECT_EQ(single.usage.prompt_token_count(),
            answer.usage.prompt_token_count());

  // The other calls give the same, in order.
  const v1::GenerateResponse unary = Unary(request);
  grpc::ClientContext context;
  SetDeadline(&context);
  auto stream = cluster_->inference().BatchGenerate(&context);
  v1::BatchGenerateRequest batch;
  *batch.mutable_request() = request;
  EXPECT_TRUE(stream->Write(batch));
  stream->WritesDone();
  v1::BatchGenerateResponse result;
  EXPECT_TRUE(stream->Read(&result));
  for (const v1::GenerateResponse& response : {unary, result.response()}) {
    ASSERT_EQ(response.candidates_size(), 4);
    for (int i = 0; i < 4; ++i) {
      EXPECT_EQ(response.candidates(i).index(), i);
      EXPECT_EQ(response.candidates(i).text(), answer.candidates.at(i).text());
      EXPECT_EQ(response.candidates(i).finish_reason(),
                answer.candidates.at(i).finish_reason());
    }
    EXPECT_EQ(response.usage().output_token_count(), n_tokens);
  }
  EXPECT_FALSE(stream->Read(&result));
  EXPECT_TRUE(stream->Finish().ok());
}

TEST_F(SamplingTest, AbortAndCancelEndAllAnswers) {
  v1::GenerateRequest request = Several(6, 480);
  request.mutable_stopping()->set_ignore_end_of_sequence(true);
  request.set_request_id("several");
  const Answer aborted = Stream(*cluster_, request, 3, [&] {
    const Answer repeated = Stream(*cluster_, request);
    EXPECT_EQ(repeated.status.error_code(), grpc::StatusCode::ALREADY_EXISTS);
    grpc::ClientContext context;
    SetDeadline(&context);
    v1::AbortRequest abort;
    abort.set_request_id("several");
    v1::AbortResponse response;
    EXPECT_TRUE(cluster_->inference().Abort(&context, abort, &response).ok());
  });
  EXPECT_EQ(aborted.status.error_code(), grpc::StatusCode::CANCELLED);

  {
    grpc::ClientContext context;
    SetDeadline(&context);
    v1::StreamGenerateRequest wrapped;
    *wrapped.mutable_request() = request;
    auto reader = cluster_->inference().StreamGenerate(&context, wrapped);
    v1::StreamGenerateResponse message;
    for (int i = 0; i < 3; ++i) ASSERT_TRUE(reader->Read(&message));
    context.TryCancel();
    EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
  }
  // A request after them is processed after their ends.
  Only(Greedy("A", 1));
  EXPECT_EQ(BlocksInUse(), 0);
}

TEST_F(SamplingTest, EchoPutsThePromptInFront) {
  v1::GenerateRequest request = Several(2, 20);
  request.mutable_response_options()->set_logprobs(1);
  const v1::GenerateResponse plain = Unary(request);
  request.mutable_response_options()->set_echo(true);
  const v1::GenerateResponse echoed = Unary(request);
  const Answer streamed = Stream(*cluster_, request);
  for (int i = 0; i < 2; ++i) {
    const std::string text = request.text() + plain.candidates(i).text();
    EXPECT_EQ(echoed.candidates(i).text(), text);
    EXPECT_EQ(streamed.candidates.at(i).text(), text);
    EXPECT_EQ(TokensOf(echoed.candidates(i)), TokensOf(plain.candidates(i)));
    EXPECT_EQ(echoed.candidates(i).logprobs_size(), 20);
  }

  grpc::ClientContext context;
  SetDeadline(&context);
  v1::TokenizeRequest tokenize;
  tokenize.set_text(request.text());
  v1::TokenizeResponse tokens;
  ASSERT_TRUE(cluster_->inference().Tokenize(&context, tokenize, &tokens).ok());
  v1::GenerateRequest by_ids = request;
  *by_ids.mutable_token_ids()->mutable_ids() = tokens.token_ids();
  EXPECT_EQ(Unary(by_ids).candidates(1).text(), echoed.candidates(1).text());
}

// The state that penalties need is rebuilt from the token log, whether a prompt
// comes in pieces, or the worker that kept it is lost.
TEST(SamplingReplay, PenalisedAnswersSurviveTheLossOfTheLastStage) {
  v1::GenerateRequest request = Several(3, 200);
  request.set_text(
      "KING RICHARD III:\nNow is the winter of our discontent\nMade glorious "
      "summer by this sun of York;\n");
  v1::SamplingParameters& sampling = *request.mutable_sampling();
  sampling.set_repetition_penalty(1.1f);
  sampling.set_frequency_penalty(0.3f);
  sampling.set_presence_penalty(0.2f);
  (*sampling.mutable_logit_bias())[7] = 1.5f;
  request.mutable_stopping()->set_min_output_tokens(150);
  request.mutable_response_options()->set_logprobs(2);

  LocalCluster::Options one;
  one.stages = 1;
  auto alone = LocalCluster::Start(one);
  ASSERT_TRUE(alone.ok()) << alone.status();
  const Answer expected = Stream(**alone, request);
  ASSERT_TRUE(expected.status.ok()) << expected.status.error_message();
  ASSERT_EQ(expected.candidates.size(), 3u);
  alone->reset();

  LocalCluster::Options two;
  two.stages = 2;
  two.coordinator_flags = {"--max_step_tokens=16"};
  auto started = LocalCluster::Start(two);
  ASSERT_TRUE(started.ok()) << started.status();
  LocalCluster& cluster = **started;
  for (const int after : {-1, 30}) {
    const Answer answer = Stream(cluster, request, after, [&cluster] {
      cluster.worker(1).Signal(SIGKILL);
      EXPECT_TRUE(cluster.worker(1).Wait(absl::Seconds(10)).ok());
      EXPECT_TRUE(cluster.StartWorker(1).ok());
    });
    ASSERT_TRUE(answer.status.ok())
        << answer.status.error_message() << cluster.Logs();
    ASSERT_EQ(answer.candidates.size(), 3u);
    for (const auto& [index, candidate] : expected.candidates) {
      EXPECT_EQ(answer.candidates.at(index).SerializeAsString(),
                candidate.SerializeAsString())
          << "candidate " << index << ", killed after message " << after;
    }
  }
}

// Whatever the steps that a prompt is cut into, and whichever worker is lost
// midway, it gets the scores of one step on one stage.
TEST(SamplingReplay, ScoresSurviveTheLossOfAWorker) {
  LocalCluster::Options one;
  one.stages = 1;
  auto alone = LocalCluster::Start(one);
  ASSERT_TRUE(alone.ok()) << alone.status();
  const Written written = Write(**alone, 400);
  const Answer expected = Stream(**alone, written.scoring);
  ASSERT_TRUE(expected.status.ok()) << expected.status.error_message();
  ExpectScores(expected.prompt_logprobs, written);
  alone->reset();

  LocalCluster::Options two;
  two.stages = 2;
  two.coordinator_flags = {"--max_step_tokens=9"};
  auto started = LocalCluster::Start(two);
  ASSERT_TRUE(started.ok()) << started.status();
  LocalCluster& cluster = **started;
  for (const int lost : {-1, 0, 1}) {
    // After the first message with scores.
    const Answer answer =
        Stream(cluster, written.scoring, lost < 0 ? -1 : 1, [&] {
          cluster.worker(lost).Signal(SIGKILL);
          EXPECT_TRUE(cluster.worker(lost).Wait(absl::Seconds(10)).ok());
          EXPECT_TRUE(cluster.StartWorker(lost).ok());
        });
    ASSERT_TRUE(answer.status.ok())
        << answer.status.error_message() << cluster.Logs();
    ASSERT_EQ(answer.prompt_logprobs.size(), expected.prompt_logprobs.size());
    for (size_t i = 0; i < answer.prompt_logprobs.size(); ++i) {
      EXPECT_EQ(answer.prompt_logprobs[i].SerializeAsString(),
                expected.prompt_logprobs[i].SerializeAsString())
          << "token " << i << ", lost worker " << lost;
    }
    EXPECT_EQ(TokensOf(answer.candidates.at(0)),
              TokensOf(expected.candidates.at(0)));
  }
}

// The answers of one request may run on different pipelines, and the prompt be
// in the cache of the one that does not score it.
TEST(SamplingPipelines, ScoresComeBeforeAnyAnswer) {
  LocalCluster::Options options;
  options.workers = 2;
  options.coordinator_flags = {"--max_step_tokens=9"};
  auto started = LocalCluster::Start(options);
  ASSERT_TRUE(started.ok()) << started.status();
  LocalCluster& cluster = **started;
  int n_ready = 0;
  while (n_ready < 2) {
    grpc::ClientContext context;
    SetDeadline(&context);
    v1::GetModelResponse response;
    ASSERT_TRUE(cluster.inference().GetModel(&context, {}, &response).ok());
    n_ready = 0;
    for (const v1::Pipeline& pipeline : response.model().pipelines()) {
      n_ready += pipeline.state() == v1::PIPELINE_STATE_READY;
    }
  }
  const Written written = Write(cluster, 400);
  v1::GenerateRequest request = written.scoring;
  request.mutable_sampling()->set_sample_count(2);
  request.mutable_stopping()->set_max_output_tokens(20);
  request.mutable_response_options()->clear_prompt_logprobs();
  const Answer plain = Stream(cluster, request);
  ASSERT_TRUE(plain.status.ok()) << plain.status.error_message();
  request.mutable_response_options()->set_prompt_logprobs(4);
  const Answer scored = Stream(cluster, request);  // checks the order
  ASSERT_TRUE(scored.status.ok()) << scored.status.error_message();
  ExpectScores(scored.prompt_logprobs, written);
  ASSERT_EQ(scored.candidates.size(), 2u);
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(TokensOf(scored.candidates.at(i)),
              TokensOf(plain.candidates.at(i)));
  }
}

}  // namespace
}  // namespace tern
