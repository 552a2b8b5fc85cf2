// ./dev bench speculation: tokens/s with tokens guessed ahead and without, on text that repeats what it is
// made from and on text that does not. One engine answers the same requests with and without in turn, so that
// both see the same machine, and the answers must be the same. Prints a Markdown table.
#include <algorithm>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "engine/engine.h"
#include "engine/mutex.h"
#include "kernels/backend.h"
#include "server/checkpoint/checkpoint.h"
#include "server/tokenizer/tokenizer.h"

ABSL_FLAG(std::string, model, "build/smollm2", "a checkpoint folder with a tokenizer");
ABSL_FLAG(int, tokens, 256, "of each answer");
ABSL_FLAG(int, rounds, 3, "of which the medians count");
ABSL_FLAG(int, drafts, 8, "the most tokens that a step guesses ahead");
ABSL_FLAG(std::string, only, "", "texts whose name has this in it");
ABSL_FLAG(bool, amx, true, "where the CPU has it");
ABSL_FLAG(bool, int8, false, "weights in int8 instead of bf16");

namespace sessa {
namespace {

[[noreturn]] void Fail(const std::string& why) {
  std::fprintf(stderr, "%s\n", why.c_str());
  std::exit(1);
}

// What the clients of a run were sent.
class Sink final : public TokenSink {
 public:
  void OnPrompt(const PromptInfo&) override {}
  bool OnToken(TokenUpdate update) override {
    tokens_.push_back(update.token);
    return true;
  }
  void OnEnd(const RequestEnd& end) override {
    const MutexLock lock(&mutex_);
    end_ = end;
    ended_ = true;
    news_.notify_all();
  }
  void Wait() {
    MutexLock lock(&mutex_);
    while (!ended_) news_.wait(mutex_);
    if (!end_.status.ok()) Fail(std::string(end_.status.message()));
  }
  // Once it has ended.
  const std::vector<int32_t>& tokens() const { return tokens_; }
  double TokensPerSecond() const {  // behind the first
    return static_cast<double>(tokens_.size() - 1) / absl::ToDoubleSeconds(end_.finished - end_.first_token);
  }

 private:
  std::vector<int32_t> tokens_;  // the engine's thread, until the end
  Mutex mutex_;
  std::condition_variable_any news_;
  RequestEnd end_;
  bool ended_ = false;
};

std::string ReadFile(const char* path) {
  std::ifstream file(path);
  if (!file) Fail(absl::StrCat(path, ": run this from the root of the tree"));
  return {std::istreambuf_iterator<char>(file), {}};
}

std::string CodeEdit() {
  const std::string code = ReadFile("tests/bench/update_docs.py");
  const std::string edited = absl::StrReplaceAll(code, {{"table", "lines"}});
  return absl::StrCat("The program update_docs.py:\n\n```python\n", code, "```\n\nThe same program with the ",
                      "variable `table` renamed to `lines`:\n\n```python\n",
                      edited.substr(0, edited.find("import re")));
}

std::string Extraction() {
  const std::string document = ReadFile("docs/architecture.md");
  const size_t begin = document.find("## The life of a request"), end = document.find("## Threads, and");
  return absl::StrCat("A document:\n\n", document.substr(begin, end - begin),
                      "\nIts section \"Pages and the ",
                      "prefix index\", word for word:\n\n## Pages and the prefix index\n\nA page is the");
}

constexpr char kStory[] =
    "The fisherman's daughter had never seen a city before, and on the morning when the train left";

struct Text {
  const char* name;
  std::string prompt;
  float temperature;
  int streams;
};

struct Run {
  std::vector<std::vector<int32_t>> tokens;  // of each stream
  double tokens_per_second = 0;              // of all
  int64_t drafted = 0, accepted = 0;
};

Run Generate(Engine* engine, const std::vector<int32_t>& prompt, const Text& text, int num_drafts) {
  const EngineStats before = engine->Stats();
  std::vector<std::shared_ptr<Sink>> sinks;
  for (int i = 0; i < text.streams; ++i) {
    Request request;
    request.prompt = prompt;
    request.sampling.max_tokens = absl::GetFlag(FLAGS_tokens);
    request.sampling.temperature = text.temperature;
    request.sampling.seed = 1 + i;
    request.sampling.ignore_eos = true;
    request.num_speculative_tokens = num_drafts;
    request.sink = sinks.emplace_back(std::make_shared<Sink>());
    if (const absl::Status taken = engine->Submit(std::move(request)).status(); !taken.ok())
      Fail(std::string(taken.message()));
  }
  Run run;
  for (const auto& sink : sinks) {
    sink->Wait();
    run.tokens.push_back(sink->tokens());
    run.tokens_per_second += sink->TokensPerSecond();
  }
  const EngineStats after = engine->Stats();
  run.drafted = after.draft_tokens - before.draft_tokens;
  run.accepted = after.accepted_draft_tokens - before.accepted_draft_tokens;
  return run;
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

void Measure(Engine* engine, const Tokenizer& tokenizer, const Text& text) {
  const auto prompt = tokenizer.Encode(text.prompt, /*add_special_tokens=*/true);
  if (!prompt.ok()) Fail(std::string(prompt.status().message()));
  const int rounds = absl::GetFlag(FLAGS_rounds), drafts = absl::GetFlag(FLAGS_drafts);
  const auto first = Generate(engine, *prompt, text, 0);  // its prompt is in the cache from now on
  std::vector<double> without, with, times;
  int64_t drafted = 0, accepted = 0;
  for (int round = 0; round < rounds; ++round) {
    // A machine's drift falls on both: each round has both, and every second one begins with the other.
    for (const bool guessed : {round % 2 != 0, round % 2 == 0}) {
      const Run run = Generate(engine, *prompt, text, guessed ? drafts : 0);
      if (run.tokens != first.tokens) Fail(absl::StrCat(text.name, ": the answers differ"));
      (guessed ? with : without).push_back(run.tokens_per_second);
      drafted += run.drafted, accepted += run.accepted;
    }
    times.push_back(with.back() / without.back());
  }
  const double generated = 1.0 * rounds * text.streams * absl::GetFlag(FLAGS_tokens);
  std::printf("| %s | %zu | %.0f | %.0f | %.2f | %.0f | %.0f %% |\n", text.name, prompt->size(),
              Median(without), Median(with), Median(times), 100 * drafted / generated,
              100.0 * accepted / std::max<int64_t>(drafted, 1));
  std::fflush(stdout);
}

void Main() {
  const std::string model = absl::GetFlag(FLAGS_model);
  auto checkpoint = Checkpoint::Open(model);
  if (!checkpoint.ok()) Fail(std::string(checkpoint.status().message()));
  auto tokenizer = Tokenizer::Load(model);
  if (!tokenizer.ok() || *tokenizer == nullptr) Fail(absl::StrCat(model, ": no tokenizer"));
  EngineOptions options;  // as the server chooses them
  options.amx = absl::GetFlag(FLAGS_amx);
  if (absl::GetFlag(FLAGS_int8)) options.weight_dtype = DType::kI8;
  if (options.weight_dtype == DType::kBF16 && (CpuHasBf16Dot() || (CpuHasAmx() && options.amx)))
    options.activation_dtype = DType::kBF16;
  auto engine = Engine::Create(options, (*checkpoint)->config(), **checkpoint);
  if (!engine.ok()) Fail(std::string(engine.status().message()));
  std::printf(
      "%s, %s weights, linears on %s; up to %d tokens guessed ahead; answers of %d tokens, medians of %d.\n\n"
      "| text | prompt | tokens/s without | with | times | guessed, per 100 tokens | of these right |\n"
      "|---|---|---|---|---|---|---|\n",
      model.c_str(), Name(options.weight_dtype), options.amx && CpuHasAmx() ? "AMX" : "vector units",
      absl::GetFlag(FLAGS_drafts), absl::GetFlag(FLAGS_tokens), absl::GetFlag(FLAGS_rounds));
  const Text texts[] = {
      {"code edit", CodeEdit(), 0, 1},
      {"extraction from a document", Extraction(), 0, 1},
      {"a story, at temperature 0.8", kStory, 0.8f, 1},
      {"words at random (temperature 2)", kStory, 2, 1},
      {"code edit, 8 streams", CodeEdit(), 0, 8},
      {"a story, 8 streams", kStory, 0.8f, 8},
  };
  for (const Text& text : texts) {
    if (absl::StrContains(text.name, absl::GetFlag(FLAGS_only))) Measure(engine->get(), **tokenizer, text);
  }
}

}  // namespace
}  // namespace sessa

int main(int argc, char** argv) {
  absl::SetProgramUsageMessage("speculation_bench: ./dev bench speculation");
  absl::ParseCommandLine(argc, argv);
  sessa::Main();
}
