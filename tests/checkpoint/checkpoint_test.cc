// Malformed checkpoints of every kind: each gets an error that names the file and the field, and nothing
// crashes.
#include "server/checkpoint/checkpoint.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "engine/engine.h"
#include "server/checkpoint/config_json.h"
#include "server/checkpoint/generation_config.h"

namespace sessa {
namespace {

constexpr char kConfig[] =
    R"({"model_type": "sessa", "vocab_size": 8, "hidden_size": 16, "num_hidden_layers": 1,
  "num_attention_heads": 2, "num_key_value_heads": 1, "layer_norm_eps": 1e-05, "use_forward_rope": true,
  "rope_theta": 10000.0, "gamma_max": 0.999, "tie_word_embeddings": true, "max_position_embeddings": 64,
  "bos_token_id": 0, "eos_token_id": [0, 1]})";

std::string Length(uint64_t n) {
  std::string bytes;
  for (int i = 0; i < 8; ++i) bytes += static_cast<char>(n >> (8 * i));
  return bytes;
}
std::string Safetensors(const std::string& header, size_t data_bytes) {
  return Length(header.size()) + header + std::string(data_bytes, '\0');
}

class Folder {
 public:
  Folder() {
    static int count = 0;
    dir_ = absl::StrCat(testing::TempDir(), "/sessa_checkpoint_", getpid(), "_", count++);
    std::filesystem::create_directories(dir_);
  }
  ~Folder() { std::filesystem::remove_all(dir_); }
  const std::string& dir() const { return dir_; }
  void Write(const std::string& name, const std::string& bytes) const {
    std::ofstream(dir_ + "/" + name, std::ios::binary) << bytes;
  }
  void ExpectError(const std::vector<std::string>& parts) const {
    const auto checkpoint = Checkpoint::Open(dir_);
    ASSERT_FALSE(checkpoint.ok()) << parts[0];
    for (const std::string& part : parts) {
      EXPECT_NE(checkpoint.status().message().find(part), std::string::npos)
          << part << " not in: " << checkpoint.status();
    }
  }

 private:
  std::string dir_;
};

TEST(SafetensorsTest, Malformed) {
  constexpr char kA[] = R"("a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]})";
  const auto with = [&](const char* from, const char* to) {
    return absl::StrCat("{", absl::StrReplaceAll(kA, {{from, to}}), "}");
  };
  const std::string good = absl::StrCat("{\"__metadata__\": {\"format\": \"pt\"}, ", kA, "}");
  const std::string good_file = Safetensors(good, 24);
  ASSERT_TRUE(SafetensorsFile::Parse("f", good_file, good_file.size()).ok());
  const std::pair<std::string, const char*> cases[] = {
      {"", "header length"},
      {"1234567", "header length"},
      {Length(1) + "", "header length 1 is beyond the end"},
      {Length(~0ull) + "{}", "header length"},
      {Length(100'000'001) + "{}", "header length"},
      {Safetensors("nope", 0), "header is not JSON"},
      {Safetensors("[]", 0), "header is not a JSON object"},
      {Safetensors(std::string(100000, '['), 0), "header is not JSON"},
      {Safetensors("{\"a\": 1}", 0), "tensor a: entry"},
      {Safetensors(with("\"F32\"", "\"F64\""), 24), "tensor a: dtype F64"},
      {Safetensors(with("\"F32\"", "32"), 24), "tensor a: dtype"},
      {Safetensors(with("[2, 3]", "[2, -3]"), 24), "tensor a: shape"},
      {Safetensors(with("[2, 3]", "[2, 3.5]"), 24), "tensor a: shape"},
      {Safetensors(with("[2, 3]", "[4294967296, 4294967296]"), 24), "tensor a: shape overflows"},
      {Safetensors(with("[2, 3]", "7"), 24), "tensor a: shape"},
      {Safetensors(with("[2, 3]", "[2, 4]"), 24),
       "tensor a: data_offsets span 24 bytes, shape and dtype need 32"},
      {Safetensors(with("[0, 24]", "[24, 0]"), 24), "tensor a: data_offsets"},
      {Safetensors(with("[0, 24]", "[0]"), 24), "tensor a: data_offsets"},
      {Safetensors(with("[0, 24]", "[-24, 0]"), 24), "tensor a: data_offsets"},
      {Safetensors(with("[0, 24]", "[0, 9223372036854775807]"), 24), "tensor a: data_offsets end"},
      {Safetensors(good, 23), "truncated"},
      {Safetensors(good, 25), "bytes after the last tensor"},
      {Safetensors(
           absl::StrCat("{", kA, R"(, "b": {"dtype": "F32", "shape": [3], "data_offsets": [20, 32]}})"), 32),
       "overlap"},
      {Safetensors(
           absl::StrCat("{", kA, R"(, "b": {"dtype": "F32", "shape": [3], "data_offsets": [28, 40]}})"), 40),
       "hole"},
      {Safetensors(
           absl::StrCat("{", kA, R"(, "b": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}})"),
           24),
       "overlap"},
  };
  for (const auto& [bytes, expected] : cases) {
    const auto file = SafetensorsFile::Parse("the-file", bytes, bytes.size());
    ASSERT_FALSE(file.ok()) << expected;
    EXPECT_EQ(file.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_NE(file.status().message().find(expected), std::string::npos) << file.status();
    EXPECT_EQ(file.status().message().find("the-file"), 0u) << file.status();
  }
}

TEST(GenerationConfigTest, IdsAndDefaults) {
  const auto config = ParseGenerationConfig(
      R"({"eos_token_id": [2, 7], "temperature": 1, "top_p": 0.9, "top_k": 20, "min_p": null, "do_sample": true,
          "repetition_penalty": 1.05, "max_new_tokens": 2048, "transformers_version": "4.57.0"})");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->eos_token_ids, (std::vector<int32_t>{2, 7}));
  EXPECT_EQ(config->sampling.temperature, 1.0);
  EXPECT_EQ(config->sampling.top_p, 0.9);
  EXPECT_EQ(config->sampling.top_k, 20);
  EXPECT_EQ(config->sampling.min_p, std::nullopt);
  EXPECT_EQ(config->sampling.repetition_penalty, 1.05);
  EXPECT_EQ(config->sampling.max_tokens, 2048);
  EXPECT_EQ(ParseGenerationConfig(R"({"eos_token_id": 5})")->eos_token_ids, (std::vector<int32_t>{5}));
  for (const char* bad : {"", "[]", R"({"eos_token_id": "5"})", R"({"eos_token_id": [5, null]})",
                          R"({"top_k": 1.5})", R"({"temperature": "1"})", R"({"max_new_tokens": 0})"}) {
    EXPECT_EQ(ParseGenerationConfig(bad).status().code(), absl::StatusCode::kInvalidArgument) << bad;
  }
}

TEST(ConfigJsonTest, EveryKeyIsJudged) {
  ASSERT_TRUE(ParseConfigJson(kConfig).ok()) << ParseConfigJson(kConfig).status();
  EXPECT_EQ(ParseConfigJson(kConfig)->eos_token_ids, (std::vector<int32_t>{0, 1}));
  const std::tuple<const char*, const char*, const char*> cases[] = {
      {"\"sessa\"", "\"gpt2\"", "model_type: must be"},
      {"\"vocab_size\": 8, ", "", "vocab_size: is missing"},
      {"\"vocab_size\": 8", "\"vocab_size\": 0", "vocab_size"},
      {"\"vocab_size\": 8", "\"vocab_size\": -8", "vocab_size"},
      {"\"vocab_size\": 8", "\"vocab_size\": 1e9", "vocab_size"},
      {"\"vocab_size\": 8", "\"vocab_size\": 99999999999", "vocab_size"},
      {"\"vocab_size\": 8", "\"vocab_size\": \"8\"", "vocab_size"},
      {"\"hidden_size\": 16", "\"hidden_size\": 15", "num_attention_heads"},
      {"\"hidden_size\": 16", "\"hidden_size\": 0", "hidden_size"},
      {"\"hidden_size\": 16", "\"hidden_size\": 2147483647", "hidden_size"},
      {"\"num_hidden_layers\": 1", "\"num_hidden_layers\": 0", "num_hidden_layers"},
      {"\"num_attention_heads\": 2", "\"num_attention_heads\": 0", "num_attention_heads"},
      {"\"num_key_value_heads\": 1", "\"num_key_value_heads\": 3", "num_key_value_heads"},
      {"\"layer_norm_eps\": 1e-05", "\"layer_norm_eps\": -1", "layer_norm_eps"},
      {"\"layer_norm_eps\": 1e-05", "\"layer_norm_eps\": 1e300", "layer_norm_eps"},
      {"\"use_forward_rope\": true", "\"use_forward_rope\": 1", "use_forward_rope"},
      {"\"rope_theta\": 10000.0", "\"rope_theta\": 0", "rope_theta"},
      {"\"gamma_max\": 0.999", "\"gamma_max\": 1.0", "gamma_max"},
      {"\"gamma_max\": 0.999", "\"gamma_max\": -0.1", "gamma_max"},
      {"\"tie_word_embeddings\": true", "\"tie_word_embeddings\": \"yes\"", "tie_word_embeddings"},
      {"\"max_position_embeddings\": 64", "\"max_position_embeddings\": 0", "max_position_embeddings"},
      {"\"bos_token_id\": 0", "\"bos_token_id\": 8", "bos_token_id"},
      {"[0, 1]", "[0, 8]", "eos_token_id"},
      {"[0, 1]", "\"x\"", "eos_token_id"},
  };
  for (const auto& [from, to, expected] : cases) {
    const std::string text = absl::StrReplaceAll(kConfig, {{from, to}});
    ASSERT_NE(text, kConfig) << from;
    const auto config = ParseConfigJson(text);
    ASSERT_FALSE(config.ok()) << from << " -> " << to;
    EXPECT_NE(config.status().message().find(expected), std::string::npos) << config.status();
  }
  for (const char* text : {"", "{", "[]", "null", "{\"model_type\": 3}"})
    EXPECT_FALSE(ParseConfigJson(text).ok()) << text;
}

TEST(CheckpointTest, FilesAndShards) {
  Folder folder;
  EXPECT_EQ(Checkpoint::Open("/nonexistent").status().code(), absl::StatusCode::kNotFound);
  folder.ExpectError({"config.json"});
  folder.Write("config.json", "{");
  folder.ExpectError({"config.json", "not JSON"});
  folder.Write("config.json", kConfig);
  folder.ExpectError({"model.safetensors"});
  folder.Write("model.safetensors", "");
  folder.ExpectError({"model.safetensors", "empty"});
  folder.Write("model.safetensors",
               Safetensors(R"({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}})", 3));
  folder.ExpectError({"model.safetensors", "truncated"});
  std::filesystem::remove(folder.dir() + "/model.safetensors");

  const std::string a = Safetensors(R"({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}})", 4);
  const std::string index = "model.safetensors.index.json";
  for (const char* bad : {"[]", "{}", R"({"weight_map": []})", R"({"weight_map": {"a": 1}})"}) {
    folder.Write(index, bad);
    folder.ExpectError({index, "weight_map"});
  }
  for (const char* outside : {"../x.safetensors", "/etc/passwd", "..", ""}) {
    folder.Write(index, absl::StrCat(R"({"weight_map": {"a": ")", outside, R"("}})"));
    folder.ExpectError({index, "not a plain file name"});
  }
  folder.Write(index, R"({"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}})");
  folder.ExpectError({"1.safetensors"});
  folder.Write("1.safetensors", a);
  folder.Write("2.safetensors", a);
  folder.ExpectError({"tensor a", "two shards"});
  folder.Write("2.safetensors", absl::StrReplaceAll(a, {{"\"a\"", "\"c\""}}));
  folder.ExpectError({"weight_map", "tensor b is not in 2.safetensors"});
  folder.Write("2.safetensors", absl::StrReplaceAll(a, {{"\"a\"", "\"b\""}}));
  const auto checkpoint = Checkpoint::Open(folder.dir());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_TRUE((*checkpoint)->Get("a").ok());
  EXPECT_EQ((*checkpoint)->Get("z").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ((*checkpoint)->unused_tensors(), std::vector<std::string>{"b"});
}

// What is there and cannot be read is not taken for a file that was left out. (Permissions would not stop
// root.)
TEST(CheckpointTest, UnreadableIsNotAbsent) {
  const std::string index = "model.safetensors.index.json";
  for (const std::string name : {"config.json", "model.safetensors", index.c_str()}) {
    Folder folder;
    if (name != "config.json") folder.Write("config.json", kConfig);
    std::filesystem::create_directory(folder.dir() + "/" + name);
    folder.ExpectError({"/" + name});
    std::filesystem::remove(folder.dir() + "/" + name);
    std::filesystem::create_symlink("gone", folder.dir() + "/" + name);
    if (name != index) folder.ExpectError({"/" + name, "link"});
  }
}

constexpr char kTwoTensors[] = R"({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
  "b": {"dtype": "BF16", "shape": [20000], "data_offsets": [8, 40008]}})";

TEST(CheckpointTest, AFileThatIsCutWhileItIsReadIsNamed) {
  Folder folder;
  folder.Write("config.json", kConfig);
  folder.Write("model.safetensors", Safetensors(kTwoTensors, 40008));
  const auto checkpoint = Checkpoint::Open(folder.dir());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  const std::string path = folder.dir() + "/model.safetensors";
  std::filesystem::resize_file(path, std::filesystem::file_size(path) - 1);
  EXPECT_TRUE((*checkpoint)->Get("a").ok());
  const absl::Status cut = (*checkpoint)->Get("b").status();
  EXPECT_EQ(cut.code(), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(cut.message().find(path + ": tensor b: "), 0u) << cut;
  std::filesystem::resize_file(path, 0);
  EXPECT_EQ((*checkpoint)->Get("a").status().code(), absl::StatusCode::kOutOfRange);
}

// The first, the last and one across the border of the blocks that are looked at; the largest numbers pass.
TEST(CheckpointTest, MostCommonDType) {
  Folder folder;
  folder.Write("config.json", kConfig);
  // As many bytes of f32, but half as many values.
  folder.Write("model.safetensors",
               Safetensors(R"({"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]},
                               "b": {"dtype": "BF16", "shape": [6], "data_offsets": [12, 24]}})",
                           24));
  EXPECT_EQ((*Checkpoint::Open(folder.dir()))->most_common_dtype(), DType::kBF16);
  folder.Write("model.safetensors", Safetensors("{}", 0));
  EXPECT_EQ((*Checkpoint::Open(folder.dir()))->most_common_dtype(), DType::kF32);
}

TEST(CheckpointTest, ValuesThatAreNotFiniteAreNamed) {
  struct Case {
    const char* dtype;
    int size;
    uint32_t largest;
    std::vector<uint32_t> bad;  // NaN of either sign, both infinities
  };
  const Case cases[] = {{"F32", 4, 0x7f7fffff, {0x7fc00000, 0xffc00001, 0x7f800000, 0xff800000}},
                        {"F16", 2, 0x7bff, {0x7e00, 0xfe01, 0x7c00, 0xfc00}},
                        {"BF16", 2, 0x7f7f, {0x7fc0, 0xffc1, 0x7f80, 0xff80}}};
  constexpr int kN = 10000;
  for (const Case& c : cases) {
    const std::string header = absl::StrCat("{\"a\": {\"dtype\": \"", c.dtype, "\", \"shape\": [", kN,
                                            "], \"data_offsets\": [0, ", kN * c.size, "]}}");
    const auto get = [&](int at, uint32_t bits) {
      Folder folder;
      folder.Write("config.json", kConfig);
      std::string bytes = Safetensors(header, kN * c.size);
      memcpy(bytes.data() + bytes.size() - (kN - at) * c.size, &bits, c.size);
      folder.Write("model.safetensors", bytes);
      return (*Checkpoint::Open(folder.dir()))->Get("a").status();
    };
    EXPECT_TRUE(get(5, c.largest).ok());
    EXPECT_TRUE(get(5, c.largest | 1u << (8 * c.size - 1)).ok());
    for (int at : {0, 4095, 4096, kN - 1}) {
      for (uint32_t bits : c.bad) {
        const absl::Status status = get(at, bits);
        EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
        EXPECT_NE(
            status.message().find(absl::StrCat("model.safetensors: tensor a: element ", at, " of 10000")),
            std::string::npos)
            << status;
      }
    }
  }
}

// A whole model whose tensor is missing, of a wrong shape or dtype: the engine says which.
TEST(CheckpointTest, EngineNamesTheTensor) {
  const auto original = SafetensorsFile::Open(absl::StrCat(SESSA_DEMO_MODEL, "/model.safetensors"));
  ASSERT_TRUE(original.ok());
  const auto engine_error = [&](const std::string& leave_out, const std::string& spoil,
                                const std::string& as_dtype) {
    Folder folder;
    std::filesystem::copy(absl::StrCat(SESSA_DEMO_MODEL, "/config.json"), folder.dir() + "/config.json");
    std::string header = "{", data;
    for (const auto& [name, view] : (*original)->tensors()) {
      if (name == leave_out) continue;
      const bool bad = name == spoil;
      absl::StrAppend(&header, header.size() > 1 ? ", " : "", "\"", name, "\": {\"dtype\": \"",
                      bad ? as_dtype : "BF16", "\", \"shape\": [");
      const size_t bytes = view.num_bytes;
      if (bad) {
        absl::StrAppend(&header, bytes / (as_dtype == "I64" ? 8 : 2));
      } else {
        for (size_t i = 0; i < view.shape.size(); ++i)
          absl::StrAppend(&header, i > 0 ? ", " : "", view.shape[i]);
      }
      absl::StrAppend(&header, "], \"data_offsets\": [", data.size(), ", ", data.size() + bytes, "]}");
      data.append((*original)->Read(view).value().get(), bytes);
    }
    header += "}";
    folder.Write("model.safetensors", Length(header.size()) + header + data);
    const auto checkpoint = Checkpoint::Open(folder.dir());
    EXPECT_TRUE(checkpoint.ok()) << checkpoint.status();
    EngineOptions options;
    options.state_cache_bytes = 64 << 20;
    return std::string(Engine::Create(options, (*checkpoint)->config(), **checkpoint).status().message());
  };
  const std::string name = "layers.2.mixer.q_proj.weight";
  EXPECT_NE(engine_error(name, "", "").find(name), std::string::npos);
  EXPECT_NE(engine_error("", name, "BF16").find(name + " has shape"), std::string::npos)
      << engine_error("", name, "BF16");
  EXPECT_NE(engine_error("", name, "I64").find(name + ": dtype I64"), std::string::npos);
  EXPECT_EQ(engine_error("", "", ""), "");
}

}  // namespace
}  // namespace sessa
